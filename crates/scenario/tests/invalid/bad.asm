; A guest with mistakes.
start:
        mov     eax, 1
        vmcal
        mov     [rax + rbx * 3], ecx
        hlt
