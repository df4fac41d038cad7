; Right behind the switch to protected mode, the segment registers still are those of real mode: SS has RPL 1, CS has RPL 0 and is no code
; segment. Processors do not mind; VM entry does, without unrestricted guests.
start:
        mov     ax, 1
        mov     ss, ax
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        mov     eax, 1                  ; VAPIC_POLL_IRQ
site:   db      0x0f, 0x01, OPCODE
after:  hlt
