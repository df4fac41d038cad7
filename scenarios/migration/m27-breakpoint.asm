; A code breakpoint on the instruction behind MOV SS, met before a move and behind it. R8 and R9: how many debug exceptions there were.
start:  mov     rax, target
        mov     dr0, rax
        mov     eax, 1
        mov     dr7, rax
        xor     r15d, r15d
        xor     r12d, r12d
        mov     ebx, DATA
again:  mov     ss, ebx
target: nop
        inc     r12d
        cmp     r12d, 2
        je      ready
        mov     r8d, r15d
        xor     r15d, r15d
here:   nop
        jmp     again
ready:  mov     r9d, r15d
        hlt
debug:  inc     r15d
        or      dword [rsp + 16], 0x10000
        iretq
