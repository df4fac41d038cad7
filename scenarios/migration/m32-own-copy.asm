; The code of the page copied to another place, and called there before the move and behind it. R15 counts calls that succeeded.
PAGE    equ     0x30000
COPY    equ     0x31000
start:  xor     r15d, r15d
        mov     ecx, 0x40000000
        mov     eax, 0x81000000
        xor     edx, edx
        wrmsr
        mov     ecx, 0x40000001
        mov     eax, PAGE + 1
        wrmsr
        mov     eax, [PAGE]
        mov     [COPY], eax
        mov     r13d, 2
again:  mov     ecx, 0x10008
        mov     rax, COPY
        call    rax
        test    rax, rax
        jnz     here
        inc     r15d
here:   dec     r13d
        jnz     again
        hlt
