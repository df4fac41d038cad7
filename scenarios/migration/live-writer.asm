; Fills PAGES pages with noise, which does not compress. Then it writes them in turn, ROUNDS times: each page counts in its first bytes how often
; it was written, and r12 counts the rounds. A page that counts otherwise has lost a write, and the guest says so with 1 at the debug exit.
FIRST equ 0x80000
    mov rdi, FIRST
    mov rax, 0x9e3779b97f4a7c15
    mov ecx, PAGES * 512
fill:
    mov rdx, rax
    shl rdx, 13
    xor rax, rdx
    mov rdx, rax
    shr rdx, 7
    xor rax, rdx
    mov rdx, rax
    shl rdx, 17
    xor rax, rdx
    mov [rdi], rax
    add rdi, 8
    dec ecx
    jnz fill
    mov rdi, FIRST
    mov ecx, PAGES
clear:
    mov qword ptr [rdi], 0
    add rdi, 0x1000
    dec ecx
    jnz clear
    xor r12d, r12d
round:
    mov rdi, FIRST
    mov ecx, PAGES
page:
    cmp [rdi], r12
    jne lost
    inc qword ptr [rdi]
    mov r8d, PAUSES
wait:
    pause
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
    mov al, 1
    out 0xf4, al
