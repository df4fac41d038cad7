; Two CPUs share four call sites and pass them in opposite directions, a hundred times each.
start:
        xor     r15d, r15d
        test    edi, edi
        jnz     odd
even:
        mov     eax, 1
site0:  db      0x0f, 0x01, FOREIGN
        add     [sum], rax
        mov     eax, 1
site1:  db      0x0f, 0x01, FOREIGN
        add     [sum], rax
        inc     r15d
        cmp     r15d, 100
        jb      even
        hlt
odd:
        mov     eax, 1
        call    site1_
        mov     eax, 1
        call    site0_
        inc     r15d
        cmp     r15d, 100
        jb      odd
        hlt
site1_: jmp     .try
.try:
site2:  db      0x0f, 0x01, FOREIGN
        lock add [sum], rax
        ret
site0_:
site3:  db      0x0f, 0x01, FOREIGN
        lock add [sum], rax
        ret

align 8
sum:    dq      0
