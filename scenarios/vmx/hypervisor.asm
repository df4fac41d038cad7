; A guest that is itself a hypervisor, and stories of one mechanism each: STORY says which. Host and guest share their general registers
; but RSP. Results are in R8 to R15; RAX, RBX, RCX, RDX, RSI and RDI are the host's tools.
FIRST   equ     0x60000                 ; pages that the stories map
SECOND  equ     0x61000
THIRD   equ     0x62000
FOURTH  equ     0x63000

; Fields of the VMCS.
VPID            equ     0x0000
NOTIFICATION    equ     0x0002
EPTP_INDEX      equ     0x0004
INTERRUPT_STATUS equ    0x0810
PML_INDEX       equ     0x0812
IO_BITMAP_A     equ     0x2000
IO_BITMAP_B     equ     0x2002
MSR_BITMAPS     equ     0x2004
ENTRY_MSRS      equ     0x200a
PML_ADDRESS     equ     0x200e
VIRTUAL_APIC    equ     0x2012
APIC_ACCESS     equ     0x2014
POSTED          equ     0x2016
VM_FUNCTIONS    equ     0x2018
EPT_POINTER     equ     0x201a
EOI_EXIT_1      equ     0x201e
EPTP_LIST       equ     0x2024
VMREAD_BITMAP   equ     0x2026
VMWRITE_BITMAP  equ     0x2028
VE_INFORMATION  equ     0x202a
GUEST_PHYSICAL  equ     0x2400
LINK_POINTER    equ     0x2800
GUEST_DEBUGCTL  equ     0x2802
PIN_BASED       equ     0x4000
PRIMARY         equ     0x4002
CR3_TARGETS     equ     0x400a
EXIT_CONTROLS   equ     0x400c
ENTRY_CONTROLS  equ     0x4012
ENTRY_MSR_COUNT equ     0x4014
ENTRY_EVENT     equ     0x4016
ENTRY_CODE      equ     0x4018
ENTRY_LENGTH    equ     0x401a
TPR_THRESHOLD   equ     0x401c
SECONDARY       equ     0x401e
PLE_GAP         equ     0x4020
PLE_WINDOW      equ     0x4022
ERROR           equ     0x4400
REASON          equ     0x4402
VECTORING       equ     0x4408
LENGTH          equ     0x440c
INTERRUPTIBILITY equ    0x4824
TIMER           equ     0x482e
CR0_MASK        equ     0x6000
CR0_SHADOW      equ     0x6004
CR3_TARGET_0    equ     0x6008
QUALIFICATION   equ     0x6400
GUEST_RSP       equ     0x681c
GUEST_RIP       equ     0x681e
GUEST_RFLAGS    equ     0x6820
HOST_RSP        equ     0x6c14

start:
        mov     ecx, 0x3a               ; IA32_FEATURE_CONTROL: allow VMXON and lock
        rdmsr
        test    al, 1
        jnz     .locked
        or      al, 5
        wrmsr
.locked:
        mov     rax, cr4
        bts     rax, 13                 ; VMXE
        mov     cr4, rax
        mov     ecx, 0x480              ; IA32_VMX_BASIC: the revision
        rdmsr
        mov     [region], eax
        mov     [vmcs], eax
        bts     eax, 31
        mov     [shadow], eax
        vmxon   [region_pointer]
        vmclear [vmcs_pointer]
        vmptrld [vmcs_pointer]
        call    ept_tables

        lea     rsi, [controls]
.control:
        mov     ecx, [rsi]
        rdmsr
        or      eax, [rsi + 4]
        and     eax, edx
        mov     ebx, [rsi + 8]
        vmwrite rbx, rax
        add     rsi, 12
        cmp     rsi, controls_end
        jb      .control
        lea     rsi, [fields]
.field: mov     rbx, [rsi]
        mov     rax, [rsi + 8]
        vmwrite rbx, rax
        add     rsi, 16
        cmp     rsi, fields_end
        jb      .field
        mov     rax, cr0
        mov     ebx, 0x6c00
        vmwrite rbx, rax
        mov     ebx, 0x6800
        vmwrite rbx, rax
        mov     rax, cr3
        mov     ebx, 0x6c02
        vmwrite rbx, rax
        mov     ebx, 0x6802
        vmwrite rbx, rax
        mov     rax, cr4
        mov     ebx, 0x6c04
        vmwrite rbx, rax
        mov     ebx, 0x6804
        vmwrite rbx, rax
        sgdt    [table]
        mov     rax, [table + 2]
        mov     ebx, 0x6c0c
        vmwrite rbx, rax
        mov     ebx, 0x6816
        vmwrite rbx, rax
        movzx   eax, word [table]
        mov     ebx, 0x4810
        vmwrite rbx, rax
        sidt    [table]
        mov     rax, [table + 2]
        mov     ebx, 0x6c0e
        vmwrite rbx, rax
        mov     ebx, 0x6818
        vmwrite rbx, rax
        movzx   eax, word [table]
        mov     ebx, 0x4812
        vmwrite rbx, rax
        mov     qword [FIRST], 1
        mov     qword [SECOND], 2
        xor     r15d, r15d
        mov     ebx, STORY
        jmp     qword [stories + rbx * 8]

; 0. The guest reads a page. The host then maps another one there and forgets to invalidate: the guest reads the old one until it does.
missing_invept:
        mov     eax, guest0
        call    begin
        mov     qword [ept_pages + 8 * (FIRST >> 12)], SECOND + 0x37
        call    skip
        call    invalidate
        call    skip
done0:  hlt
guest0: mov     r8, [FIRST]
        vmcall
        mov     r9, [FIRST]
        vmcall
        mov     r10, [FIRST]
        vmcall

; 1. What EPT refuses, and how the qualification tells: a write, a fetch, a page that is not there, the guest's own page table; and an entry
; that no processor accepts.
violations:
        mov     byte [SECOND], 0xc3                     ; RET
        mov     qword [ept_pages + 8 * (FIRST >> 12)], FIRST + 0x35
        mov     qword [ept_pages + 8 * (SECOND >> 12)], SECOND + 0x33
        mov     qword [ept_pages + 8 * (THIRD >> 12)], 0
        mov     qword [ept_pages + 8 * (FOURTH >> 12)], FOURTH + 0x32
        mov     eax, guest1
        call    begin
        call    qualification
        mov     r8, rax
        mov     ebx, GUEST_PHYSICAL
        vmread  r14, rbx
        mov     qword [ept_pages + 8 * (FIRST >> 12)], FIRST + 0x37
        call    invalidate_and_run
        call    qualification
        mov     r9, rax
        mov     qword [ept_pages + 8 * (SECOND >> 12)], SECOND + 0x37
        mov     qword [ept_pages + 8 * (PAGE_TABLE >> 12)], 0
        call    invalidate_and_run
        call    qualification
        mov     r10, rax
        mov     qword [ept_pages + 8 * (PAGE_TABLE >> 12)], PAGE_TABLE + 0x37
        call    invalidate_and_run
        call    qualification
        mov     r11, rax
        mov     qword [ept_pages + 8 * (THIRD >> 12)], THIRD + 0x37
        call    invalidate_and_run
        mov     ebx, REASON
        vmread  r12, rbx
        mov     qword [ept_pages + 8 * (FOURTH >> 12)], FOURTH + 0x37
        call    invalidate_and_run
        mov     ebx, REASON
        vmread  r13, rbx
done1:  hlt
guest1: mov     [FIRST], eax
        call    SECOND
        mov     eax, [THIRD]
        mov     eax, [FOURTH]
        vmcall

; 2. The host wants to know when the guest can take an interrupt, and then when it can take an NMI: behind STI and its shadow, behind IRET.
windows:
        mov     eax, 1 << 2                             ; interrupt-window exiting
        mov     ebx, PRIMARY
        call    add_bits
        mov     eax, guest2
        call    begin
        mov     ebx, REASON
        vmread  r8, rbx
        mov     ebx, GUEST_RIP
        vmread  r9, rbx
        mov     eax, 0x28                               ; NMI exiting, virtual NMIs
        mov     ebx, PIN_BASED
        call    add_bits
        mov     ebx, PRIMARY
        vmread  rax, rbx
        btr     eax, 2
        bts     eax, 22                                 ; NMI-window exiting
        vmwrite rbx, rax
        mov     eax, 1 << 3                             ; NMIs are blocked
        mov     ebx, INTERRUPTIBILITY
        vmwrite rbx, rax
        call    run
        mov     ebx, REASON
        vmread  r10, rbx
        mov     ebx, GUEST_RIP
        vmread  r11, rbx
done2:  hlt
guest2: sti
        nop                                             ; the shadow of STI
opened: cli
        mov     rcx, rsp
        mov     eax, DATA
        push    rax
        push    rcx
        push    2
        mov     eax, CODE64
        push    rax
        mov     eax, unblocked
        push    rax
        iretq
unblocked:
        vmcall

; 3. The page-modification log: two pages fit in, the third write leaves the guest.
log:    mov     eax, 1 << 17                            ; enable PML
        mov     ebx, SECONDARY
        call    add_bits
        mov     eax, 1 << 6                             ; accessed and dirty flags
        mov     ebx, EPT_POINTER
        call    add_bits
        mov     ebx, PML_ADDRESS
        mov     eax, page_log
        vmwrite rbx, rax
        mov     ebx, PML_INDEX
        mov     eax, 511
        vmwrite rbx, rax
        mov     eax, guest3                             ; the guest's own tables are logged first
        call    begin
        mov     ebx, PML_INDEX
        mov     eax, 1
        vmwrite rbx, rax
        call    skip
        mov     ebx, REASON
        vmread  r8, rbx
        mov     r9, [page_log + 8]
        mov     r10, [page_log]
        mov     ebx, PML_INDEX
        vmread  r11, rbx
        mov     eax, 511
        vmwrite rbx, rax
        call    run
        mov     r12, [page_log + 511 * 8]
        mov     ebx, REASON
        vmread  r13, rbx
        mov     r14, [ept_pages + 8 * (FIRST >> 12)]
        shr     r14d, 8
        and     r14d, 3
done3:  hlt
guest3: mov     rax, [FIRST]
        mov     rax, [SECOND]
        mov     rax, [THIRD]
        vmcall
        mov     [FIRST], eax
        mov     [SECOND], eax
        mov     [FIRST + 8], eax
        mov     [THIRD], eax
        vmcall

; 4. The bitmaps: port 60H and reads of EFER leave the guest, port 61H and reads of KERNEL_GS_BASE do not.
bitmaps:
        mov     eax, (1 << 25) + (1 << 28)              ; use I/O bitmaps, use MSR bitmaps
        mov     ebx, PRIMARY
        call    add_bits
        mov     ebx, IO_BITMAP_A
        mov     eax, bitmap_a
        vmwrite rbx, rax
        mov     ebx, IO_BITMAP_B
        mov     eax, bitmap_b
        vmwrite rbx, rax
        mov     ebx, MSR_BITMAPS
        mov     eax, msr_bitmaps
        vmwrite rbx, rax
        mov     byte [bitmap_a + 0x60 / 8], 1
        mov     byte [msr_bitmaps + 0x400 + 0x80 / 8], 1
        mov     eax, guest4
        call    begin
        mov     ebx, REASON
        vmread  r8, rbx
        call    qualification
        mov     r9, rax
        call    skip
        mov     ebx, REASON
        vmread  r10, rbx
        call    skip
        mov     ebx, REASON
        vmread  r11, rbx
done4:  hlt
guest4: in      al, 0x61
        in      al, 0x60
        mov     ecx, 0xc0000102
        rdmsr
        mov     ecx, 0xc0000080
        rdmsr
        vmcall

; 5. Events of every type are injected one after the other; each handler notes its vector.
injection:
        mov     ebx, GUEST_RFLAGS
        mov     eax, 0x202
        vmwrite rbx, rax
        mov     r8d, 0x80000040                         ; interrupt
        mov     r9d, guest5
        call    inject
        mov     r8d, 0x80000202                         ; NMI
        call    inject
        mov     ebx, ENTRY_CODE
        mov     eax, 0x18
        vmwrite rbx, rax
        mov     r8d, 0x80000b0d                         ; #GP with an error code
        call    inject
        mov     ebx, ENTRY_LENGTH
        mov     eax, 2
        vmwrite rbx, rax
        mov     r8d, 0x80000441                         ; INT 41H of two bytes
        mov     r9d, guest5 - 2
        call    inject
done5:  hlt
guest5: vmcall

; 6. The stack of a guest is not mapped when INT 41H is delivered. The host maps it and gives the event back.
vectoring:
        mov     qword [ept_pages + 8 * (FOURTH >> 12)], 0
        mov     ebx, GUEST_RSP
        mov     eax, FOURTH + 0x800
        vmwrite rbx, rax
        mov     eax, guest6
        call    begin
        mov     ebx, REASON
        vmread  r8, rbx
        mov     ebx, VECTORING
        vmread  r9, rbx
        mov     ebx, LENGTH
        vmread  r10, rbx
        mov     qword [ept_pages + 8 * (FOURTH >> 12)], FOURTH + 0x37
        mov     ebx, ENTRY_EVENT
        vmwrite rbx, r9
        mov     ebx, ENTRY_LENGTH
        vmwrite rbx, r10
        call    invalidate_and_run
        mov     ebx, REASON
        vmread  r11, rbx
        mov     ebx, GUEST_RIP
        vmread  r12, rbx
done6:  hlt
guest6: int     0x41
behind6:
        vmcall

; 7. The guest, a hypervisor too, reads the shadow VMCS without an exit; the bitmap for VMWRITE takes its writes.
shadowing:
        vmclear [shadow_pointer]
        vmptrld [shadow_pointer]
        mov     ebx, GUEST_RIP
        mov     eax, 0x1111
        vmwrite rbx, rax
        vmclear [shadow_pointer]
        vmptrld [vmcs_pointer]
        mov     eax, 1 << 14                            ; VMCS shadowing
        mov     ebx, SECONDARY
        call    add_bits
        mov     ebx, LINK_POINTER
        mov     eax, shadow
        vmwrite rbx, rax
        mov     ebx, VMREAD_BITMAP
        mov     eax, bitmap_a
        vmwrite rbx, rax
        mov     ebx, VMWRITE_BITMAP
        mov     eax, bitmap_b
        vmwrite rbx, rax
        mov     byte [bitmap_b + GUEST_RIP / 8], 1 << (GUEST_RIP % 8)
        mov     eax, guest7
        call    begin
        mov     ebx, REASON
        vmread  r9, rbx
        mov     byte [bitmap_b + GUEST_RIP / 8], 0
        call    run
        mov     ebx, REASON
        vmread  r10, rbx
        vmptrld [shadow_pointer]
        mov     ebx, GUEST_RIP
        vmread  r11, rbx
done7:  hlt
guest7: mov     ecx, GUEST_RIP
        vmread  r8, rcx
        lea     rdx, [r8 + 1]
        vmwrite rcx, rdx
        vmcall

; 8. A virtual interrupt waits until the guest lowers its task priority; its EOI leaves the guest, because the host wants to know.
virtual_interrupts:
        mov     eax, 1                                  ; external-interrupt exiting
        mov     ebx, PIN_BASED
        call    add_bits
        mov     ebx, PRIMARY
        vmread  rax, rbx
        bts     eax, 21                                 ; use TPR shadow
        vmwrite rbx, rax
        mov     eax, 0x301                              ; virtualize APIC accesses, APIC registers, interrupt delivery
        mov     ebx, SECONDARY
        call    add_bits
        mov     ebx, VIRTUAL_APIC
        mov     eax, virtual_apic
        vmwrite rbx, rax
        mov     ebx, APIC_ACCESS
        mov     eax, FOURTH
        vmwrite rbx, rax
        mov     ebx, INTERRUPT_STATUS
        mov     eax, 0x42
        vmwrite rbx, rax
        mov     dword [virtual_apic + 0x220], 1 << 2    ; requested: 42H
        mov     dword [virtual_apic + 0x80], 0x50
        mov     ebx, EOI_EXIT_1
        mov     eax, 1 << 2
        vmwrite rbx, rax
        mov     eax, guest8
        call    begin
        mov     ebx, REASON
        vmread  r10, rbx
        call    qualification
        mov     r11, rax
        mov     r12d, [virtual_apic + 0xa0]             ; PPR
        call    run
        mov     ebx, REASON
        vmread  r13, rbx
done8:  hlt
guest8: sti
        nop
        mov     r8, r15                                 ; not yet
        mov     dword [FOURTH + 0x80], 0x30
        nop
        mov     r9, r15
        cli
        vmcall

; 9. A violation comes to the guest itself, which mends it.
converted:
        mov     eax, 1 << 18                            ; EPT-violation #VE
        mov     ebx, SECONDARY
        call    add_bits
        mov     qword [SECOND], 0
        mov     ebx, VE_INFORMATION
        mov     eax, SECOND
        vmwrite rbx, rax
        mov     qword [ept_pages + 8 * (FIRST >> 12)], 0
        mov     eax, guest9
        call    begin
        mov     ebx, REASON
        vmread  r11, rbx
done9:  hlt
guest9: mov     r10, [FIRST]
        vmcall

; 10. A guest that pauses in a loop leaves when the loop lasts too long.
pause_loop:
        mov     eax, 1 << 10                            ; PAUSE-loop exiting
        mov     ebx, SECONDARY
        call    add_bits
        mov     ebx, PLE_GAP
        mov     eax, 200
        vmwrite rbx, rax
        mov     ebx, PLE_WINDOW
        mov     eax, 2000
        vmwrite rbx, rax
        xor     r9d, r9d
        mov     eax, guest10
        call    begin
        mov     ebx, REASON
        vmread  r8, rbx
done10: hlt
guest10:
        pause
        inc     r9d
        jmp     guest10

; 11. The guest's branches are recorded; the exit turns recording off.
branches:
        mov     eax, 1 << 2                             ; load and save debug controls
        mov     ebx, ENTRY_CONTROLS
        call    add_bits
        mov     eax, 1 << 2
        mov     ebx, EXIT_CONTROLS
        call    add_bits
        mov     ebx, GUEST_DEBUGCTL
        mov     eax, 1
        vmwrite rbx, rax
        mov     eax, guest11
        call    begin
        mov     ecx, 0x1d9
        rdmsr
        mov     r8, rax
        mov     ebx, GUEST_DEBUGCTL
        vmread  r9, rbx
        mov     ecx, 0x1c9                              ; number of the newest record
        rdmsr
        lea     ecx, [rax + 0x680]
        rdmsr
        mov     r10, rax
        add     ecx, 0x40
        rdmsr
        mov     r11, rax
done11: hlt
guest11:
        jmp     reached
        nop
reached:
        vmcall

; 12. The guest takes another EPT of the list by itself; number 2 is none.
switching:
        mov     eax, 1 << 13                            ; enable VM functions
        mov     ebx, SECONDARY
        call    add_bits
        mov     ebx, VM_FUNCTIONS
        mov     eax, 1
        vmwrite rbx, rax
        mov     ebx, EPTP_LIST
        mov     eax, eptp_list
        vmwrite rbx, rax
        mov     qword [eptp_list + 8], other_root + 0x1e
        mov     esi, ept_root
        mov     edi, other_root
        mov     ecx, 4 * 512
        rep movsq
        mov     qword [other_root], other_root + 0x1007
        mov     qword [other_root + 0x1000], other_root + 0x2007
        mov     qword [other_root + 0x2000], other_root + 0x3007
        mov     qword [other_root + 0x3000 + 8 * (FIRST >> 12)], SECOND + 0x37
        mov     eax, guest12
        call    begin
        mov     ebx, REASON
        vmread  r10, rbx
        mov     ebx, EPT_POINTER
        vmread  r11, rbx
        sub     r11, other_root
done12: hlt
guest12:
        mov     r8, [FIRST]
        xor     eax, eax
        mov     ecx, 1
        vmfunc
        mov     r9, [FIRST]
        mov     ecx, 2
        vmfunc

; 13. The preemption timer ends a loop; then the monitor trap flag lets one instruction pass.
timer:  mov     eax, 1 << 6                             ; activate VMX-preemption timer
        mov     ebx, PIN_BASED
        call    add_bits
        mov     ebx, TIMER
        mov     eax, 6
        vmwrite rbx, rax
        xor     r9d, r9d
        mov     eax, guest13
        call    begin
        mov     ebx, REASON
        vmread  r8, rbx
        mov     r10, r9
        mov     ebx, PIN_BASED
        vmread  rax, rbx
        btr     eax, 6
        vmwrite rbx, rax
        mov     eax, 1 << 27                            ; monitor trap flag
        mov     ebx, PRIMARY
        call    add_bits
        mov     eax, guest13
        call    begin
        mov     ebx, REASON
        vmread  r11, rbx
        mov     ebx, GUEST_RIP
        vmread  r12, rbx
done13: hlt
guest13:
        inc     r9d
next13: jmp     guest13

; 14. Entries that are refused: by an error of the instruction, by an exit for the guest's state, by an exit for an MSR of the list.
refused:
        mov     eax, 1 << 22                            ; NMI-window exiting without virtual NMIs
        mov     ebx, PRIMARY
        call    add_bits
        vmlaunch
        mov     ebx, ERROR
        vmread  r8, rbx
        mov     ebx, PRIMARY
        vmread  rax, rbx
        btr     eax, 22
        vmwrite rbx, rax
        mov     ebx, GUEST_RFLAGS
        xor     eax, eax
        vmwrite rbx, rax
        mov     eax, guest5
        call    begin
        mov     ebx, REASON
        vmread  r9, rbx
        mov     byte [launched], 0
        mov     ebx, GUEST_RFLAGS
        mov     eax, 2
        vmwrite rbx, rax
        mov     ebx, ENTRY_MSRS
        mov     eax, msr_bitmaps
        vmwrite rbx, rax
        mov     ebx, ENTRY_MSR_COUNT
        mov     eax, 2
        vmwrite rbx, rax
        mov     dword [msr_bitmaps], 0xc0000102         ; KERNEL_GS_BASE may be in the list, FS_BASE not
        mov     eax, 0xc0000100
        mov     [msr_bitmaps + 16], eax
        mov     eax, guest5
        call    begin
        mov     ebx, REASON
        vmread  r10, rbx
        call    qualification
        mov     r11, rax
done14: hlt

; 15. Accessed and dirty flags in EPT: of a page that is read, of one that is written, of the guest's own page table, of a page that nobody
; touches.
accessed:
        mov     eax, 1 << 6
        mov     ebx, EPT_POINTER
        call    add_bits
        mov     eax, guest15
        call    begin
        mov     r8, [ept_pages + 8 * (FIRST >> 12)]
        shr     r8d, 8
        and     r8d, 3
        mov     r9, [ept_pages + 8 * (SECOND >> 12)]
        shr     r9d, 8
        and     r9d, 3
        mov     r10, [ept_pages + 8 * (PAGE_TABLE >> 12)]
        shr     r10d, 8
        and     r10d, 3
        mov     r11, [ept_pages + 8 * (THIRD >> 12)]
        shr     r11d, 8
        and     r11d, 3
done15: hlt
guest15:
        mov     eax, [FIRST]
        mov     [SECOND], eax
        vmcall

; 16. The host owns TS and NE of CR0, and the guest reads them in the shadow. What the guest owns it writes without an exit; a bit of the host's
; that would differ from the shadow leaves it. The value of CR3 that the host allows does not, another one does.
shadows:
        mov     ebx, CR0_MASK
        mov     eax, 0x28
        vmwrite rbx, rax
        mov     rax, cr0
        or      eax, 8
        and     eax, 0xffffffdf
        mov     ebx, CR0_SHADOW
        vmwrite rbx, rax
        mov     rsi, cr3
        mov     ebx, CR3_TARGET_0
        vmwrite rbx, rsi
        mov     ebx, CR3_TARGETS
        mov     eax, 1
        vmwrite rbx, rax
        mov     eax, guest16
        call    begin
        mov     ebx, REASON
        vmread  r10, rbx
        call    qualification
        mov     r11, rax
        mov     rsi, cr3
        call    skip
        mov     ebx, REASON
        vmread  r12, rbx
        call    qualification
        mov     r13, rax
done16: hlt
guest16:
        mov     r8, cr0
        mov     rax, r8
        bts     eax, 18                                 ; AM
        mov     cr0, rax
        mov     r9, cr0
        and     r8d, 0x28
        and     r9d, 0x40028
        clts
        mov     cr3, rsi
        or      rsi, 0x18
        mov     cr3, rsi

; 17. With the TPR shadow CR8 is a byte of the virtual APIC; below the threshold the guest leaves behind the instruction.
priority:
        mov     eax, 1 << 21                            ; use TPR shadow
        mov     ebx, PRIMARY
        call    add_bits
        mov     ebx, VIRTUAL_APIC
        mov     eax, virtual_apic
        vmwrite rbx, rax
        mov     dword [virtual_apic + 0x80], 0x90
        mov     ebx, TPR_THRESHOLD
        mov     eax, 5
        vmwrite rbx, rax
        mov     eax, guest17
        call    begin
        mov     ebx, REASON
        vmread  r9, rbx
        mov     ebx, GUEST_RIP
        vmread  r10, rbx
        mov     r11d, [virtual_apic + 0x80]
        mov     ebx, TPR_THRESHOLD
        xor     eax, eax
        vmwrite rbx, rax
        call    run
        mov     ebx, REASON
        vmread  r12, rbx
        mov     r13, cr8                                ; the host's own
done17: hlt
guest17:
        mov     eax, 7
        mov     cr8, rax
        mov     r8, cr8
        mov     eax, 3
        mov     cr8, rax
lowered:
        vmcall

; 18. An interrupt is posted: the notification does not leave the guest but brings what the descriptor requests.
posted: mov     eax, 0x81                               ; external-interrupt exiting, process posted interrupts
        mov     ebx, PIN_BASED
        call    add_bits
        mov     eax, 1 << 15                            ; acknowledge interrupt on exit
        mov     ebx, EXIT_CONTROLS
        call    add_bits
        mov     eax, 1 << 21                            ; use TPR shadow
        mov     ebx, PRIMARY
        call    add_bits
        mov     eax, 0x301                              ; virtualize APIC accesses, APIC registers, interrupt delivery
        mov     ebx, SECONDARY
        call    add_bits
        mov     ebx, VIRTUAL_APIC
        mov     eax, virtual_apic
        vmwrite rbx, rax
        mov     ebx, APIC_ACCESS
        mov     eax, FOURTH
        vmwrite rbx, rax
        mov     ebx, NOTIFICATION
        mov     eax, 0xf2
        vmwrite rbx, rax
        mov     ebx, POSTED
        mov     eax, eptp_list                          ; the descriptor
        vmwrite rbx, rax
        mov     byte [eptp_list + 0x42 / 8], 1 << (0x42 % 8)
        mov     byte [eptp_list + 32], 1                ; outstanding notification
        mov     eax, 0xfee000f0
        mov     dword [rax], 0x1ff
        mov     eax, 0xfee00300
        mov     dword [rax], 0x400f2                    ; the notification, to itself
        mov     eax, guest18
        call    begin
        mov     ebx, REASON
        vmread  r9, rbx
        mov     r10d, [eptp_list + 8]
        mov     r11d, [eptp_list + 32]
done18: hlt
guest18:
        sti
        nop
        nop
        mov     r8, r15
        cli
        vmcall

; 19. With mode-based execute control EPT has one bit for code at the guest's supervisor-mode addresses and one for code at user-mode addresses,
; which those of this guest are.
execution:
        mov     eax, 1 << 22                            ; mode-based execute control
        mov     ebx, SECONDARY
        call    add_bits
        or      qword [ept_root], 1 << 10
        or      qword [ept_root + 0x1000], 1 << 10
        or      qword [ept_root + 0x2000], 1 << 10
        xor     ecx, ecx
.each:  or      qword [ept_pages + rcx * 8], 1 << 10
        inc     ecx
        cmp     ecx, 512
        jb      .each
        mov     byte [SECOND], 0xc3                     ; RET
        mov     qword [ept_pages + 8 * (SECOND >> 12)], SECOND + 0x37
        mov     eax, guest19
        call    begin
        mov     ebx, REASON
        vmread  r8, rbx
        call    qualification
        mov     r9, rax
        mov     qword [ept_pages + 8 * (SECOND >> 12)], SECOND + 0x437
        call    invalidate_and_run
        mov     ebx, REASON
        vmread  r10, rbx
done19: hlt
guest19:
        call    SECOND
        vmcall

inject: mov     ebx, ENTRY_EVENT
        vmwrite rbx, r8
        mov     rax, r9
; Lets the guest run from RAX to its next exit.
begin:  mov     ebx, GUEST_RIP
        vmwrite rbx, rax
run:    mov     ebx, HOST_RSP
        vmwrite rbx, rsp
        cmp     byte [launched], 0
        jne     .again
        mov     byte [launched], 1
        vmlaunch
        jmp     failed
.again: vmresume
failed: mov     ebx, ERROR
        vmread  r8, rbx
        hlt
exited: ret

; Behind the instruction that exited, and on.
skip:   mov     ebx, LENGTH
        vmread  rcx, rbx
        mov     ebx, GUEST_RIP
        vmread  rax, rbx
        add     rax, rcx
        jmp     begin

invalidate_and_run:
        call    invalidate
        jmp     run

; INVEPT of everything.
invalidate:
        mov     eax, 2
        invept  rax, [nothing]
        ret

qualification:
        mov     ebx, QUALIFICATION
        vmread  rax, rbx
        ret

; Sets the bits in EAX in the field in EBX.
add_bits:
        vmread  rcx, rbx
        or      rcx, rax
        vmwrite rbx, rcx
        ret

; Handlers of the guest.
on_nmi: shl     r15, 8
        or      r15, 2
        iretq
on_protection:
        pop     r14
        shl     r15, 8
        or      r15, 13
        iretq
on_violation:
        mov     r8, [SECOND]
        mov     r9, [SECOND + 24]
        mov     qword [ept_pages + 8 * (FIRST >> 12)], FIRST + 0x37
        mov     dword [SECOND + 4], 0
        iretq
on_interrupt:
        shl     r15, 8
        or      r15, 0x40
        iretq
on_software:
        shl     r15, 8
        or      r15, 0x41
        iretq
on_virtual:
        shl     r15, 8
        or      r15, 0x42
        mov     dword [FOURTH + 0xb0], 0                ; EOI
        iretq

; EPT: the first 2 MiB by pages of 4 KiB, the rest of the first 4 GiB by pages of 1 GiB and 2 MiB.
ept_tables:
        mov     qword [ept_root], ept_root + 0x1007
        mov     qword [ept_root + 0x1000], ept_root + 0x2007
        mov     qword [ept_root + 0x1008], (1 << 30) + 0xb7
        mov     eax, (2 << 30) + 0xb7
        mov     [ept_root + 0x1010], rax
        mov     eax, (3 << 30) + 0xb7
        mov     [ept_root + 0x1018], rax
        xor     ecx, ecx
.each:  mov     eax, ecx
        shl     eax, 12
        add     eax, 0x37
        mov     [ept_pages + rcx * 8], rax
        mov     eax, ecx
        shl     eax, 21
        add     eax, 0xb7
        mov     [ept_root + 0x2000 + rcx * 8], rax
        inc     ecx
        cmp     ecx, 512
        jb      .each
        mov     qword [ept_root + 0x2000], ept_pages + 7
        ret

align 8
stories:
        dq      missing_invept, violations, windows, log, bitmaps, injection, vectoring, shadowing, virtual_interrupts
        dq      converted, pause_loop, branches, switching, timer, refused, accessed, shadows, priority, posted, execution

align 8
controls:
        dd      0x481, 0, PIN_BASED
        dd      0x482, 1 << 31, PRIMARY         ; activate secondary controls
        dd      0x48b, 0x22, SECONDARY          ; enable EPT and VPID
        dd      0x483, 1 << 9, EXIT_CONTROLS    ; the host is in 64-bit mode
        dd      0x484, 1 << 9, ENTRY_CONTROLS   ; and so is the guest
controls_end:

align 8
fields:
        dq      VPID, 1, EPT_POINTER, ept_root + 0x1e
        dq      0x4004, 0               ; exception bitmap
        dq      LINK_POINTER, -1
        dq      0x0c00, DATA, 0x0c02, CODE64, 0x0c04, DATA, 0x0c06, DATA, 0x0c08, 0, 0x0c0a, 0, 0x0c0c, 0x48
        dq      0x6c06, 0, 0x6c08, 0, 0x6c0a, 0x9000, 0x6c16, exited
        dq      0x0800, DATA, 0x0802, CODE64, 0x0804, DATA, 0x0806, DATA, 0x0808, 0, 0x080a, 0, 0x080c, 0, 0x080e, 0x48
        dq      0x4800, 0xffffffff, 0x4802, 0xffffffff, 0x4804, 0xffffffff, 0x4806, 0xffffffff, 0x480e, 0x67
        dq      0x4814, 0xc093, 0x4816, 0xa09b, 0x4818, 0xc093, 0x481a, 0xc093
        dq      0x481c, 0x10000, 0x481e, 0x10000, 0x4820, 0x10000, 0x4822, 0x8b
        dq      0x6814, 0x9000, 0x681a, 0x400, GUEST_RSP, 0x70000, GUEST_RFLAGS, 2
fields_end:
region_pointer:
        dq      region
vmcs_pointer:
        dq      vmcs
shadow_pointer:
        dq      shadow
launched:
        dq      0
align 16
table:  dq      0, 0
nothing:
        dq      0, 0
align 4096
region: times 4096 db 0
vmcs:   times 4096 db 0
shadow: times 4096 db 0
bitmap_a:
        times 4096 db 0
bitmap_b:
        times 4096 db 0
msr_bitmaps:
        times 4096 db 0
page_log:
        times 4096 db 0
virtual_apic:
        times 4096 db 0
eptp_list:
        times 4096 db 0
ept_root:
        times 12288 db 0
ept_pages:
        times 4096 db 0
other_root:
        times 16384 db 0
