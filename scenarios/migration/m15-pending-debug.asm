; MOV SS from a place that is watched holds its own debug exception back until the next instruction is over; that one exits, and the machine
; moves. R15 counts debug exceptions, R9 is where the last of them came.
start:  mov     rax, stack
        mov     dr0, rax
        mov     eax, 0x70001            ; four bytes are watched for reads and writes
        mov     dr7, rax
        xor     r15d, r15d
        mov     ss, [stack]
here:   mov     rax, [0x300000]
after:  nop
        hlt
debug:  inc     r15d
        mov     r9, [rsp]
        iretq
align 4
stack:  dd      DATA
