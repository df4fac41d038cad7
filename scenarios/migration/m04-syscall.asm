; A 32-bit program under a 64-bit kernel, which it calls by SYSCALL: so chooses a vDSO of Linux that is booted on an AMD processor. R15
; counts calls in the kernel, ESI in the program.
start:
        mov     ecx, 0xc0000081         ; STAR
        xor     eax, eax
        mov     edx, CODE64 | (USER_CODE32 << 16)
        wrmsr
        mov     ecx, 0xc0000083         ; CSTAR
        mov     eax, kernel
        xor     edx, edx
        wrmsr
        push    USER_DATA
        push    0x70000
        push    2
        push    USER_CODE32
        push    user
        iretq
bits 32
user:   xor     esi, esi
again:  nop
call:   syscall
back:   push    ecx
        pop     ecx
        inc     esi
        cmp     esi, 5
        jne     again
        int     0x80
bits 64
kernel: inc     r15d
        sysret
undefined:
        mov     r14d, 6
        mov     r9, [rsp]
done:   hlt
