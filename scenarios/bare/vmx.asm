; The guest is a hypervisor itself: it enters VMX operation, fills a VMCS and runs a guest of its own, which makes three
; hypercalls and halts. R15 counts the hypercalls, R9 is the last exit reason, R8 the error of an instruction that failed.
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
        vmxon   [region_pointer]
        jbe     failed
        vmclear [vmcs_pointer]
        jbe     failed
        vmptrld [vmcs_pointer]
        jbe     failed

        ; Controls: what is wanted, made to what the capability MSR allows.
        lea     rsi, [controls]
.control:
        mov     ecx, [rsi]              ; the MSR
        rdmsr
        or      eax, [rsi + 4]
        and     eax, edx
        mov     ebx, [rsi + 8]          ; the field
        vmwrite rbx, rax
        jbe     failed
        add     rsi, 12
        cmp     rsi, controls_end
        jb      .control

        ; What is the same for host and guest, then the fields of the table.
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
        lea     rsi, [fields]
.field: mov     rbx, [rsi]
        mov     rax, [rsi + 8]
        vmwrite rbx, rax
        jbe     failed
        add     rsi, 16
        cmp     rsi, fields_end
        jb      .field
        vmlaunch
failed:
        mov     ebx, 0x4400             ; VM-instruction error
        vmread  r8, rbx
        hlt

exited:
        mov     ebx, 0x4402             ; exit reason
        vmread  r9, rbx
        cmp     r9d, 18                 ; VMCALL
        jne     done
        inc     r15d
        mov     ebx, 0x681e
        vmread  rax, rbx
        mov     ebx, 0x440c             ; length of the instruction
        vmread  rdx, rbx
        add     rax, rdx
        mov     ebx, 0x681e
        vmwrite rbx, rax
        vmresume
        jmp     failed
done:   hlt

guest:
        mov     ecx, TURNS
.loop:  vmcall
        dec     ecx
        jnz     .loop
        hlt

align 8
controls:
        dd      0x481, 0, 0x4000        ; pin-based
        dd      0x482, 1 << 7, 0x4002   ; processor-based: HLT exiting
        dd      0x483, 1 << 9, 0x400c   ; exit: host in 64-bit mode
        dd      0x484, 1 << 9, 0x4012   ; entry: guest in 64-bit mode
controls_end:

align 8
fields:
        dq      0x4004, 0               ; exception bitmap
        dq      0x2800, -1              ; VMCS link pointer
        dq      0x0c00, DATA, 0x0c02, CODE64, 0x0c04, DATA, 0x0c06, DATA, 0x0c08, 0, 0x0c0a, 0, 0x0c0c, 0x48
        dq      0x6c06, 0, 0x6c08, 0, 0x6c0a, 0x9000, 0x6c0c, 0x8000, 0x6c0e, 0
        dq      0x6c14, 0x90000, 0x6c16, exited
        dq      0x0800, DATA, 0x0802, CODE64, 0x0804, DATA, 0x0806, DATA, 0x0808, 0, 0x080a, 0, 0x080c, 0, 0x080e, 0x48
        dq      0x4800, 0xffffffff, 0x4802, 0xffffffff, 0x4804, 0xffffffff, 0x4806, 0xffffffff, 0x480e, 0x67
        dq      0x4810, 0x57, 0x4812, 0
        dq      0x4814, 0xc093, 0x4816, 0xa09b, 0x4818, 0xc093, 0x481a, 0xc093
        dq      0x481c, 0x10000, 0x481e, 0x10000, 0x4820, 0x10000, 0x4822, 0x8b
        dq      0x6814, 0x9000, 0x6816, 0x8000, 0x6818, 0
        dq      0x681a, 0x400, 0x681c, 0x70000, 0x681e, guest, 0x6820, 2
fields_end:
region_pointer:
        dq      region
vmcs_pointer:
        dq      vmcs

align 4096
region: times 4096 db 0
vmcs:   times 4096 db 0
