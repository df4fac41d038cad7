; A hypercall in compatibility mode: 32-bit code under a 64-bit kernel. The number's upper half holds garbage.
start:
        mov     rax, 0xdead000000000000 + NUMBER
        mov     rbx, 0xdead000000000011
        push    CODE32
        push    compatible
        retfq
bits 32
compatible:
site:   db      0x0f, 0x01, NATIVE
        jmp     CODE64:back
bits 64
back:   mov     r8, rax
        hlt
