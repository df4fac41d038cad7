; Writes PAGES pages in turn, ROUNDS times: each page holds how often it was written. Counts in r12; a page that holds something
; else has lost a write, and the guest says so with an exit code of 1 on the debug exit.
    xor r12d, r12d
round:
    mov rdi, 0x400000
    mov ecx, PAGES
page:
    cmp [rdi], r12
    jne lost
    inc qword ptr [rdi]
    mov r8d, PAUSE
wait:
    dec r8d
    jnz wait
    add rdi, 0x1000
    dec ecx
    jnz page
    inc r12
    cmp r12d, ROUNDS
    jne round
done:
    hlt
lost:
    mov al, 0
    out 0xf4, al
