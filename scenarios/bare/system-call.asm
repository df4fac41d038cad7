; User mode, SYSCALL into the kernel, SYSRET back, and an interrupt to end it.
start:
        mov     ecx, 0xc0000081         ; STAR: kernel at CODE64, user at the descriptors below USER_DATA
        xor     eax, eax
        mov     edx, CODE64 | (USER_CODE32 << 16)
        wrmsr
        mov     ecx, 0xc0000082         ; LSTAR
        mov     eax, kernel
        xor     edx, edx
        wrmsr
        mov     ecx, 0xc0000084         ; FMASK: interrupts and direction off in the kernel
        mov     eax, 0x600
        wrmsr
        push    USER_DATA
        push    0x80000
        push    0x202
        push    USER_CODE64
        push    user
        iretq
user:
        mov     eax, 20
        syscall
back:   mov     r9, rax
        mov     r12d, cs
        int     0x80
kernel:
        mov     r13d, cs
        mov     r14, rcx                ; where SYSCALL will return to
        lea     rax, [rax * 2 + 2]
        o64 sysret
done:   hlt
