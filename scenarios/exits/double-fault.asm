; #GP has no handler that is present: delivering it makes #NP, which makes a double fault, which has one.
start:
        mov     eax, 0x7fffffff
        shl     rax, 32
site:   mov     [rax], rax              ; not canonical
        hlt

double_fault:
        pop     r8                      ; error code, always 0
        pop     r9
        hlt
