; Two CPUs at one foreign hypercall whose last byte lies on the next page: the patch is two writes.
start:
        jmp     near site
times 0xff9 nop
site:   db      0x0f, 0x01, FOREIGN
        hlt
