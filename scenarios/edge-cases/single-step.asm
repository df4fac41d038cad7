; The trap flag is set right before a foreign hypercall. The handler of #DB writes down where each trap was reported.
start:
        lea     rbx, [log]
        mov     eax, 1
        pushfq
        or      qword [rsp], 1 << 8
        popfq
site:   db      0x0f, 0x01, FOREIGN
next:   nop
        pushfq
        and     qword [rsp], ~(1 << 8)
        popfq
        hlt

debug:
        push    rax
        mov     rax, [rsp + 8]
        mov     [rbx], rax
        add     rbx, 8
        mov     rax, dr6
        mov     [rbx], rax
        add     rbx, 8
        xor     eax, eax
        mov     dr6, rax
        pop     rax
        iretq

align 8
log:    times 32 dq 0
