; The first page fault of this guest finds a stack that no nested table maps yet: its delivery is interrupted by a VM exit. STI in front of it
; keeps the hypervisor's own interrupt away until then. R15 counts faults, R8 is the error code, R9 where the fault was.
NOWHERE equ     0x1f0000
start:
        mov     qword [PAGE_TABLE + (NOWHERE >> 12) * 8], 0
        invlpg  [NOWHERE]
        mov     rsp, 0x300000
        xor     r15d, r15d
        sti
here:   mov     rax, [NOWHERE]
after:  cli
        hlt
page_fault:
        inc     r15d
        pop     r8
        mov     r9, [rsp]
        mov     rax, after
        mov     [rsp], rax
        iretq
