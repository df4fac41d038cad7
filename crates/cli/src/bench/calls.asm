; Calls and returns: Fibonacci numbers in the naive way.
start:  mov     rcx, TURNS
again:  mov     edi, 8
        call    fibonacci
        dec     rcx
        jnz     again
        hlt
fibonacci:
        cmp     edi, 2
        jb      .known
        push    rbx
        push    rdi
        dec     edi
        call    fibonacci
        mov     ebx, eax
        pop     rdi
        sub     edi, 2
        call    fibonacci
        add     eax, ebx
        pop     rbx
        ret
.known: mov     eax, edi
        ret
