; A guest that is itself a hypervisor, and stories of one mechanism each: STORY says which. Host and guest share their general
; registers but RAX and RSP, which is where the results are.
FIRST   equ     0x60000                 ; pages that the stories map
SECOND  equ     0x61000
THIRD   equ     0x62000
FOURTH  equ     0x63000
KEY     equ     0x81                    ; VMEXIT_VMMCALL

start:
        mov     ecx, 0xc0000080         ; EFER.SVME
        rdmsr
        bts     eax, 12
        wrmsr
        mov     [vmcb + 0x4d0], eax     ; the guest's EFER has it too
        mov     ecx, 0xc0010117         ; VM_HSAVE_PA
        mov     eax, host_save
        xor     edx, edx
        wrmsr
        call    nested_tables

        mov     dword [vmcb + 0x010], 0b11              ; intercept VMRUN and VMMCALL
        mov     qword [vmcb + 0x040], io_map
        mov     qword [vmcb + 0x048], msr_map
        mov     dword [vmcb + 0x058], 1                 ; ASID
        mov     dword [vmcb + 0x090], 1                 ; nested paging
        mov     qword [vmcb + 0x0b0], nested_root
        mov     word [vmcb + 0x410], CODE64             ; CS: selector, attributes, limit
        mov     word [vmcb + 0x412], 0x29b
        mov     dword [vmcb + 0x414], 0xffffffff
        mov     edi, vmcb + 0x400                       ; ES
        call    data_segment
        mov     edi, vmcb + 0x420                       ; SS
        call    data_segment
        mov     edi, vmcb + 0x430                       ; DS
        call    data_segment
        sgdt    [table]
        mov     edi, vmcb + 0x460
        call    table_register
        sidt    [table]
        mov     edi, vmcb + 0x480
        call    table_register
        mov     rax, cr4
        mov     [vmcb + 0x548], rax
        mov     rax, cr3
        mov     [vmcb + 0x550], rax
        mov     rax, cr0
        mov     [vmcb + 0x558], rax
        mov     qword [vmcb + 0x560], 0x400             ; DR7
        mov     dword [vmcb + 0x568], 0xffff0ff0        ; DR6
        mov     qword [vmcb + 0x570], 2                 ; RFLAGS
        mov     qword [vmcb + 0x5d8], 0x70000           ; RSP
        mov     rax, 0x0007040600070406
        mov     [vmcb + 0x668], rax                     ; G_PAT
        mov     qword [FIRST], 1
        mov     qword [SECOND], 2
        mov     ebx, STORY
        jmp     qword [stories + rbx * 8]

stories:
        dq      missing_flush, violations, window, held, maps, injection, branches, pauses, loads, forgotten
        dq      interrupted, accessed, traps, refusals, controls, priority

; 0. The guest reads a page. The host then maps another one there and forgets to flush: the guest reads the old one until it does.
missing_flush:
        mov     qword [vmcb + 0x578], guest0
        call    run
        mov     qword [nested_pages + 8 * (FIRST >> 12)], SECOND + 7
        add     qword [vmcb + 0x578], 3
        call    run
        mov     eax, FIRST
        mov     ecx, 1
        invlpga
        add     qword [vmcb + 0x578], 3
        call    run
done0:  hlt
guest0: mov     r8, [FIRST]
        vmmcall
        mov     r9, [FIRST]
        vmmcall
        mov     r10, [FIRST]
        vmmcall

; 1. What nested tables refuse, and how EXITINFO1 tells: a write, a fetch, a reserved bit, nothing there, the guest's own table.
violations:
        mov     qword [vmcb + 0x578], guest1
        mov     byte [SECOND], 0xc3                     ; RET
        mov     qword [nested_pages + 8 * (FIRST >> 12)], FIRST + 5
        mov     rax, (1 << 63) + SECOND + 7
        mov     [nested_pages + 8 * (SECOND >> 12)], rax
        mov     rax, (1 << 51) + THIRD + 7
        mov     [nested_pages + 8 * (THIRD >> 12)], rax
        mov     qword [nested_pages + 8 * (FOURTH >> 12)], 0
        call    run
        mov     r8, [vmcb + 0x078]
        mov     r14, [vmcb + 0x080]
        mov     qword [nested_pages + 8 * (FIRST >> 12)], FIRST + 7
        call    flush_and_run
        mov     r9, [vmcb + 0x078]
        mov     qword [nested_pages + 8 * (SECOND >> 12)], SECOND + 7
        call    flush_and_run
        mov     r10, [vmcb + 0x078]
        mov     qword [nested_pages + 8 * (THIRD >> 12)], THIRD + 7
        call    flush_and_run
        mov     r11, [vmcb + 0x078]
        mov     qword [nested_pages + 8 * (FOURTH >> 12)], FOURTH + 7
        mov     qword [nested_pages + 8 * (PAGE_TABLE >> 12)], PAGE_TABLE + 5
        call    flush_and_run
        mov     r12, [vmcb + 0x078]
        mov     r15, [vmcb + 0x080]
        mov     qword [nested_pages + 8 * (PAGE_TABLE >> 12)], PAGE_TABLE + 7
        call    flush_and_run
        mov     r13, [vmcb + 0x070]
done1:  hlt
guest1: mov     [FIRST], eax
        call    SECOND
        mov     eax, [THIRD]
        mov     eax, [FOURTH]
        vmmcall

; 2. The host wants to know when the guest can take an interrupt: a virtual one is pending, and its delivery is intercepted.
window: mov     qword [vmcb + 0x578], guest2
        mov     dword [vmcb + 0x00c], 1 << 4            ; VINTR
        mov     rax, (0x40 << 32) + (1 << 24) + (1 << 20) + (1 << 8)
        mov     [vmcb + 0x060], rax
        call    run
        mov     r13, [vmcb + 0x070]
        mov     r9, [vmcb + 0x578]
        mov     r10, r15                                ; not delivered
        mov     qword [vmcb + 0x060], 1 << 24
        mov     eax, 0x80000040
        mov     [vmcb + 0x0a8], rax
        call    run
        mov     r11, [vmcb + 0x070]
done2:  hlt
guest2: xor     r15d, r15d
        sti
        nop                                             ; the shadow of STI
opened: vmmcall

; 3. With the global interrupt flag clear NMIs are held; one that is intercepted leaves the guest and is still there for the host.
held:   clgi
        call    send_nmi
        mov     r8, r15
        stgi
        nop
        mov     r9, r15
        mov     qword [vmcb + 0x578], guest3
        mov     dword [vmcb + 0x00c], 1 << 1            ; NMI
        clgi
        call    send_nmi
        call    run
        mov     r10, [vmcb + 0x070]
        mov     r11, r15
        stgi
        nop
        mov     r12, r15
done3:  hlt
guest3: vmmcall

; 4. The permission maps: port 60H and reads of EFER leave the guest, port 61H and reads of KERNEL_GS_BASE do not.
maps:   mov     qword [vmcb + 0x578], guest4
        mov     dword [vmcb + 0x00c], 0b11 << 27        ; ports and MSRs
        mov     byte [io_map + 0x60 / 8], 1
        mov     byte [msr_map + 0x800 + 0x80 / 4], 1
        call    run
        mov     r8, [vmcb + 0x070]
        mov     r9, [vmcb + 0x078]
        mov     rax, [vmcb + 0x080]
        mov     [vmcb + 0x578], rax
        call    run
        mov     r10, [vmcb + 0x070]
        mov     r11, [vmcb + 0x078]
        mov     rax, [vmcb + 0x0c8]
        mov     [vmcb + 0x578], rax
        call    run
        mov     r12, [vmcb + 0x070]
done4:  hlt
guest4: in      al, 0x61
        in      al, 0x60
        mov     ecx, 0xc0000102
        rdmsr
        mov     ecx, 0xc0000080
        rdmsr
        vmmcall

; 5. Events of every type are injected one after the other; each handler notes its vector.
injection:
        xor     r8d, r8d
        mov     qword [vmcb + 0x578], guest5
        mov     rax, 0x80000040                         ; interrupt
        call    inject
        mov     rax, 0x80000202                         ; NMI
        call    inject
        mov     rax, 0x1880000b0d                       ; #GP with an error code
        call    inject
        mov     rax, 0x80000441                         ; INT 41H
        mov     qword [vmcb + 0x0c8], guest5
        call    inject
done5:  hlt
guest5: vmmcall

; 6. Host and guest have last-branch records of their own.
branches:
        mov     qword [vmcb + 0x578], guest6
        mov     qword [vmcb + 0x0b8], 1
        mov     qword [vmcb + 0x670], 1                 ; the guest's DebugCtl
        mov     ecx, 0x1d9
        mov     eax, 1
        xor     edx, edx
        wrmsr
hosts:  jmp     recorded
recorded:
        mov     eax, vmcb
        vmrun
        xor     eax, eax
        mov     ecx, 0x1d9
        wrmsr
        mov     ecx, 0x1db
        rdmsr
        mov     r8, rax
        mov     r9, [vmcb + 0x678]
        mov     r10, [vmcb + 0x680]
done6:  hlt
guest6:
guests: jmp     reached
        nop
reached:
        vmmcall

; 7. The filter lets three PAUSEs pass; then the guest leaves.
pauses: xor     r8d, r8d
        mov     qword [vmcb + 0x578], guest7
        mov     dword [vmcb + 0x00c], 1 << 23           ; PAUSE
        mov     word [vmcb + 0x03e], 3
        call    run
        mov     r9, [vmcb + 0x070]
done7:  hlt
guest7: pause
        inc     r8d
        jmp     guest7

; 8. A guest may execute VMLOAD itself, in its own addresses: what it finds there is where the nested tables say.
loads:  mov     qword [vmcb + 0x578], guest8
        mov     qword [vmcb + 0x0b8], 2
        mov     qword [nested_pages + 8 * (FIRST >> 12)], SECOND + 7
        mov     qword [SECOND + 0x620], 0x1234          ; KERNEL_GS_BASE
        call    run
        mov     r9, [vmcb + 0x070]
        mov     dword [vmcb + 0x010], 0b111             ; now VMLOAD is intercepted
        mov     qword [vmcb + 0x578], guest8
        call    run
        mov     r10, [vmcb + 0x070]
done8:  hlt
guest8: mov     eax, FIRST
        vmload
        mov     ecx, 0xc0000102
        rdmsr
        mov     r8, rax
        vmmcall

; 9. The host intercepts CPUID from now on and says that its intercepts are as they were: the processor believes it until it is told. RAX
; belongs to no clean bit and is read every time; CR2 belongs to its own.
forgotten:
        mov     qword [vmcb + 0x578], guest9
        call    run
        mov     dword [vmcb + 0x00c], 1 << 18           ; CPUID
        mov     qword [vmcb + 0x640], 0x1000            ; CR2
        mov     qword [vmcb + 0x5f8], 7                 ; RAX
        mov     dword [vmcb + 0x0c0], 0x3ff             ; all is clean
        mov     qword [vmcb + 0x578], guest9
        call    run
        mov     r8, [vmcb + 0x070]
        mov     r10, r14                                ; CR2 as the guest found it
        mov     r11, r13                                ; RAX likewise
        mov     qword [vmcb + 0x640], 0x2000
        mov     dword [vmcb + 0x0c0], 0x1fe             ; all but the intercepts and CR2
        mov     qword [vmcb + 0x578], guest9
        call    run
        mov     r9, [vmcb + 0x070]
        mov     r12, r14
done9:  hlt
guest9: mov     r13, rax
        mov     r14, cr2
        cpuid
        vmmcall

; 10. The page of the guest's stack is missing when an interrupt is delivered: EXITINTINFO holds the interrupt, which the host injects again.
interrupted:
        xor     r8d, r8d
        mov     qword [vmcb + 0x578], guest10
        mov     qword [nested_pages + 8 * 0x6f], 0
        mov     rax, 0x80000040
        call    inject
        mov     r9, [vmcb + 0x070]
        mov     r10, [vmcb + 0x088]
        mov     qword [nested_pages + 8 * 0x6f], 0x6f007
        mov     rax, r10
        call    inject
        mov     r11, [vmcb + 0x070]
done10: hlt
guest10:
        vmmcall

; 11. Accessed and dirty bits in the nested tables: of a page that is read, of one that is written, of the guest's own page table, of a page that
; nobody touches.
accessed:
        mov     qword [vmcb + 0x578], guest11
        call    run
        mov     r8, [nested_pages + 8 * (FIRST >> 12)]
        and     r8d, 0xfff
        mov     r9, [nested_pages + 8 * (SECOND >> 12)]
        and     r9d, 0xfff
        mov     r10, [nested_pages + 8 * (PAGE_TABLE >> 12)]
        and     r10d, 0xfff
        mov     r11, [nested_pages + 8 * (THIRD >> 12)]
        and     r11d, 0xfff
done11: hlt
guest11:
        mov     eax, [FIRST]
        mov     [SECOND], eax
        vmmcall

; 12. With the guest mode execute trap the guest's kernel may execute only what the nested tables do not give to user mode.
traps:  xor     ecx, ecx
.each:  and     byte [nested_pages + rcx * 8], 0xfb
        inc     ecx
        cmp     ecx, 512
        jb      .each
        mov     byte [SECOND], 0xc3                     ; RET
        mov     qword [nested_pages + 8 * (SECOND >> 12)], SECOND + 7
        mov     dword [vmcb + 0x090], 1 + 8
        mov     qword [vmcb + 0x578], guest12
        call    run
        mov     r8, [vmcb + 0x070]
        mov     r9, [vmcb + 0x078]
        mov     r10, [vmcb + 0x080]
        mov     qword [nested_pages + 8 * (SECOND >> 12)], SECOND + 3
        call    flush_and_run
        mov     r11, [vmcb + 0x070]
done12: hlt
guest12:
        call    SECOND
        vmmcall

; 13. VMRUN refuses ASID 0, a VMCB that does not intercept VMRUN, and an NMI that is called an exception; then it enters.
refusals:
        mov     qword [vmcb + 0x578], guest13
        mov     dword [vmcb + 0x058], 0
        call    run
        mov     r8, [vmcb + 0x070]
        mov     dword [vmcb + 0x058], 1
        mov     dword [vmcb + 0x010], 0b10
        call    run
        mov     r9, [vmcb + 0x070]
        mov     dword [vmcb + 0x010], 0b11
        mov     eax, 0x80000302
        call    inject
        mov     r10, [vmcb + 0x070]
        mov     qword [vmcb + 0x0a8], 0
        call    run
        mov     r11, [vmcb + 0x070]
done13: hlt
guest13:
        vmmcall

; 14. Writes of CR0 that change more than TS and MP leave the guest, and all of CR3; the others do not.
controls:
        mov     qword [vmcb + 0x578], guest14
        mov     dword [vmcb], 1 << 19                   ; writes of CR3
        mov     dword [vmcb + 0x00c], 1 << 5            ; selective writes of CR0
        xor     r12d, r12d
        call    run
        mov     r8, [vmcb + 0x070]
        mov     r9, [vmcb + 0x078]
        mov     rax, [vmcb + 0x0c8]
        mov     [vmcb + 0x578], rax
        call    run
        mov     r10, [vmcb + 0x070]
        mov     r11, [vmcb + 0x078]
done14: hlt
guest14:
        mov     rdi, cr0
        or      edi, 8                                  ; TS
        mov     cr0, rdi
        inc     r12d
        bts     edi, 18                                 ; AM
        mov     cr0, rdi
        mov     cr3, rsi

; 15. With V_INTR_MASKING the guest has a task priority of its own, and a virtual interrupt waits until it is lower.
priority:
        xor     r8d, r8d
        mov     qword [vmcb + 0x578], guest15
        mov     rax, (0x40 << 32) + (1 << 24) + (4 << 16) + (1 << 8) + 9
        mov     [vmcb + 0x060], rax
        call    run
        mov     r10, [vmcb + 0x070]
        movzx   r11d, byte [vmcb + 0x060]
        mov     r12, cr8                                ; the host's own
done15: hlt
guest15:
        xor     r15d, r15d
        sti
        nop
        mov     r13, r15                                ; not yet
        mov     edi, 3
        mov     cr8, rdi
        nop
        mov     r9, r15
        cli
        vmmcall

inject: mov     [vmcb + 0x0a8], rax
run:    mov     eax, vmcb
        vmrun
        ret

; TLB_CONTROL: everything of this guest, once.
flush_and_run:
        mov     byte [vmcb + 0x05c], 3
        call    run
        mov     byte [vmcb + 0x05c], 0
        ret

send_nmi:
        mov     eax, 0xfee00300
        mov     dword [rax], 0x44400                    ; to itself
        ret

; Handlers of host and guest.
on_nmi: inc     r15d
        shl     r8, 8
        or      r8, 2
        iretq
on_protection:
        pop     r9
        shl     r8, 8
        or      r8, 13
        iretq
on_interrupt:
        inc     r15d
        shl     r8, 8
        or      r8, 0x40
        iretq
on_software:
        shl     r8, 8
        or      r8, 0x41
        iretq

data_segment:
        mov     word [rdi], DATA
        mov     word [rdi + 2], 0xc93
        mov     dword [rdi + 4], 0xffffffff
        ret

table_register:
        movzx   eax, word [table]
        mov     [rdi + 4], eax
        mov     rax, [table + 2]
        mov     [rdi + 8], rax
        ret

; The first 2 MiB by pages of 4 KiB, the rest of the first 4 GiB by pages of 1 GiB and 2 MiB.
nested_tables:
        mov     qword [nested_root], nested_top + 7
        mov     qword [nested_top], nested_directory + 7
        mov     qword [nested_top + 8], (1 << 30) + 0x87
        mov     eax, (2 << 30) + 0x87
        mov     [nested_top + 16], rax
        mov     eax, (3 << 30) + 0x87
        mov     [nested_top + 24], rax
        xor     ecx, ecx
.each:  mov     eax, ecx
        shl     eax, 12
        add     eax, 7
        mov     [nested_pages + rcx * 8], rax
        mov     eax, ecx
        shl     eax, 21
        add     eax, 0x87
        mov     [nested_directory + rcx * 8], rax
        inc     ecx
        cmp     ecx, 512
        jb      .each
        mov     qword [nested_directory], nested_pages + 7
        ret

align 16
table:  dq      0, 0
align 4096
vmcb:   times 4096 db 0
host_save:
        times 4096 db 0
nested_root:
        times 4096 db 0
nested_top:
        times 4096 db 0
nested_directory:
        times 4096 db 0
nested_pages:
        times 4096 db 0
io_map: times 12288 db 0
msr_map:
        times 8192 db 0
