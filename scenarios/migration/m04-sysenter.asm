; A 32-bit program under a 64-bit kernel, which it calls by SYSENTER: so chooses a vDSO of Linux that is booted on an Intel processor. R15
; counts calls in the kernel, ESI in the program.
USER_STACK equ  0x70000
start:
        xor     edx, edx
        mov     ecx, 0x174              ; SYSENTER_CS
        mov     eax, CODE64
        wrmsr
        mov     ecx, 0x175              ; SYSENTER_ESP
        mov     eax, 0x80000
        wrmsr
        mov     ecx, 0x176              ; SYSENTER_EIP
        mov     eax, kernel
        wrmsr
        mov     ecx, 0xc0000081         ; STAR, for the way back
        xor     eax, eax
        mov     edx, CODE64 | (USER_CODE32 << 16)
        wrmsr
        push    USER_DATA
        push    USER_STACK
        push    2
        push    USER_CODE32
        push    user
        iretq
bits 32
user:   xor     esi, esi
again:  mov     ebp, back
call:   sysenter
back:   inc     esi
        cmp     esi, 5
        jne     again
        int     0x80
bits 64
kernel: inc     r15d
        mov     ecx, ebp
        mov     r11d, 2
        mov     esp, USER_STACK
        sysret
undefined:
        mov     r14d, 6
        mov     r9, [rsp]
done:   hlt
