; Indirect jumps: a little interpreter whose program is 8 operations of one byte each.
start:  mov     rcx, TURNS
        xor     eax, eax
        mov     ebx, 1
again:  mov     esi, program
next:   movzx   edi, byte [rsi]
        inc     rsi
        jmp     [operations + rdi * 8]
add:    add     rax, rbx
        jmp     next
rotate: rol     rbx, 7
        jmp     next
mix:    xor     rbx, rax
        jmp     next
take:   sub     rax, rcx
        jmp     next
done:   dec     rcx
        jnz     again
        hlt
align 8
operations:
        dq      add, rotate, mix, take, done
program:
        db      0, 1, 2, 3, 1, 0, 2, 4
