; A 64-bit kernel returns to a 32-bit program by SYSRET, with the null stack segment that an interrupt left. Intel's SYSRET gives the program a
; new stack segment, AMD's leaves the attributes as they are. With FIX the kernel loads SS before, as Linux does where it finds an AMD
; processor when it boots. ESI counts rounds, R14 is 12 after a stack fault.
start:  mov     ecx, 0xc0000081
        xor     eax, eax
        mov     edx, CODE64 | (USER_CODE32 << 16)
        wrmsr
        xor     esi, esi
        xor     r14d, r14d
leave:  mov     eax, DATA * FIX
        mov     ss, eax
        mov     ecx, user
        mov     r11d, 2
        mov     esp, 0x70000
        sysret
bits 32
user:   push    eax
        pop     eax
        inc     esi
        int     0x80
bits 64
kernel: cmp     esi, 5
        jne     leave
        hlt
stack_fault:
        mov     r14d, 12
        hlt
