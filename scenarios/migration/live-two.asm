; Two CPUs count up one number together, each for itself in rbx; together they have counted as often as the number says.
    mov esi, 0x80000
again:
    lock inc qword ptr [rsi]
    inc rbx
    lea r9, [rdi + 1]
    shl r9, 14
    mov [rsi + r9], rbx
    mov r8d, 100
wait:
    pause
    dec r8d
    jnz wait
    cmp ebx, TURNS
    jne again
    lock inc qword ptr [rsi + 8]
stay:
    pause
    cmp qword ptr [rsi + 8], 2
    jne stay
    mov rax, [rsi]
    hlt
