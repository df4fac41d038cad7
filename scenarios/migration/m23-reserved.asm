; A page-table entry with address bit 46 set, which is reserved on one processor and an address on the other. R8 and R9: 9 for a page fault
; with the bit "reserved" in its error code, or what reads from nowhere give. The move is between them.
PLACE   equ     0x1f0000
start:  mov     rax, 0x400000000007
        mov     [PAGE_TABLE + (PLACE >> 12) * 8], rax
        invlpg  [PLACE]
        mov     eax, [PLACE]
        nop
        nop
first:  mov     r8d, eax
here:   invlpg  [PLACE]
        mov     eax, [PLACE]
        nop
        nop
second: mov     r9d, eax
        hlt
page_fault:
        pop     rax
        add     qword [rsp], 7
        iretq
