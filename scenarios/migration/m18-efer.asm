; EFER.FFXSR keeps FXSAVE of a 64-bit kernel from the XMM registers. At home, behind one move and behind a second: EFER, and what FXSAVE
; wrote of XMM0 (R8 and R9, R10 and R11, R12 and R13). R14 counts the attempts to set the bits that were refused.
EFER    equ     0xc0000080
AREA    equ     0x200000
start:  xor     r14d, r14d
        mov     rax, cr4
        or      eax, 0x600
        mov     cr4, rax
        mov     rax, 0x1122334455667788
        movq    xmm0, rax
        mov     ecx, EFER
        call    set
        call    look
        mov     r8d, eax
        mov     r9, rbx
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        call    look
        mov     r10d, eax
        mov     r11, rbx
        call    set
        mov     eax, 1
        db      0x0f, 0x01, NATIVE
        call    look
        mov     r12d, eax
        mov     r13, rbx
        hlt

set:    rdmsr
        or      eax, BITS
        wrmsr
        ret

; EFER in RDX:RAX, XMM0 as FXSAVE has it in RBX.
look:   mov     qword [AREA + 160], 0
        fxsave  [AREA]
        mov     rbx, [AREA + 160]
        rdmsr
        ret

; WRMSR was refused.
protection:
        inc     r14d
        add     rsp, 8
        add     qword [rsp], 2
        iretq
