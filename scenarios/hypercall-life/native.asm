; One hypercall with the processor's own instruction.
start:
        mov     eax, 1                  ; VAPIC_POLL_IRQ: does nothing and returns 0
        mov     ebx, 0x11               ; arguments that it ignores, but that the trace shows
        mov     ecx, 0x22
        mov     edx, 0x33
        mov     esi, 0x44
site:   db      0x0f, 0x01, NATIVE
after:  hlt
