; Writes of CR0, CR3 and CR4, and what is refused.
start:
        mov     rax, cr0
        mov     r8, rax
        btr     rax, 16                 ; WP off
        mov     cr0, rax
        mov     r9, cr0
        mov     rax, cr3
        mov     cr3, rax
        mov     rax, cr4
        bts     rax, 7                  ; PGE on
        mov     cr4, rax
        mov     r10, cr4
        mov     rax, cr0
        btr     rax, 0                  ; PE off while PG is on: refused
bad:    mov     cr0, rax
        hlt

protection:
        pop     r11
        pop     r12
        hlt
