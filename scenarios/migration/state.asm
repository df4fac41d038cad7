; Every kind of state a program can see is set before a move and read after it.
start:
        mov     ecx, 0xc0000081         ; STAR
        mov     eax, 0x11111111
        mov     edx, 0x00180008
        wrmsr
        mov     ecx, 0xc0000102         ; KERNEL_GS_BASE
        mov     eax, 0x22222222
        mov     edx, 0x00000001
        wrmsr
        mov     ecx, 0xc0000100         ; FS base
        mov     eax, 0x33333333
        mov     edx, 0x00000002
        wrmsr
        mov     ecx, 0x175              ; SYSENTER_ESP
        mov     eax, 0x44444444
        xor     edx, edx
        wrmsr
        mov     rax, 0x5555555566666666
        mov     dr0, rax
        movq    xmm0, rax
        movlhps xmm15, xmm0
        mov     rbp, 0x0123456789abcdef
        mov     r13, -2
        stc
        std
        mov     eax, 1
here:   db      0x0f, 0x01, NATIVE      ; the script moves the machine after this hypercall
moved:
        pushfq
        pop     r8
        cld
        mov     ecx, 0xc0000081
        rdmsr
        shl     rdx, 32
        lea     r9, [rdx + rax]
        mov     ecx, 0xc0000102
        rdmsr
        shl     rdx, 32
        lea     r10, [rdx + rax]
        mov     ecx, 0xc0000100
        rdmsr
        shl     rdx, 32
        lea     r11, [rdx + rax]
        mov     ecx, 0x175
        rdmsr
        shl     rdx, 32
        lea     r12, [rdx + rax]
        mov     rbx, dr0
        movhlps xmm1, xmm15
        movq    rsi, xmm1
        hlt
