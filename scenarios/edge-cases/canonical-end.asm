; A hypercall in the last three bytes of the lower canonical half: it returns to an address that cannot be fetched from.
TOP     equ 0x7ffffffffffd

start:
        ; Map the last page of the half: PML4 entry 255, then entry 511 three times, down to the page `last`.
        mov     eax, pdpt + 7
        mov     [0x1000 + 255 * 8], rax
        mov     eax, directory + 7
        mov     [pdpt + 511 * 8], rax
        mov     eax, table + 7
        mov     [directory + 511 * 8], rax
        mov     eax, last + 7
        mov     [table + 511 * 8], rax
        mov     eax, 1
        mov     rbx, TOP
        jmp     rbx

protection:
        pop     r8
        pop     r9
        hlt

align 4096
pdpt:   times 4096 db 0
directory:
        times 4096 db 0
table:  times 4096 db 0
last:   times 4093 db 0xcc
copy:   db      0x0f, 0x01, NATIVE ^ (NATIVE ^ FOREIGN) * USE_FOREIGN
