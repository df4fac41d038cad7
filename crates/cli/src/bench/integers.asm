; Rotates, adds and XORs over a table of 4 KiB, one turn for each of its words.
start:  xor     edi, edi
        mov     rcx, TURNS
        mov     rax, 0x243f6a8885a308d3
again:  mov     rdx, [table + rdi * 8]
        add     rdx, rax
        rol     rax, 13
        xor     rax, rdx
        imul    rdx, rax, 5
        mov     [table + rdi * 8], rdx
        inc     edi
        and     edi, 511
        dec     rcx
        jnz     again
        hlt
align 4096
table:  times 4096 db 0
