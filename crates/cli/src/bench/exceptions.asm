; An undefined instruction each turn; the handler steps over it.
start:  mov     eax, handler
        mov     [table + 6 * 16], ax
        mov     word [table + 6 * 16 + 2], CODE64
        mov     word [table + 6 * 16 + 4], 0x8e00
        shr     eax, 16
        mov     [table + 6 * 16 + 6], ax
        lidt    [pointer]
        mov     rcx, TURNS
again:  ud2
        dec     rcx
        jnz     again
        hlt
handler:
        add     qword [rsp], 2
        iretq
align 8
pointer:
        dw      7 * 16 - 1
        dq      table
align 16
table:  times 7 * 16 db 0
