; A hypercall that does nothing each turn. The instruction is Intel's: on AMD the hypervisor patches it the first time.
start:  mov     r12, TURNS
again:  mov     eax, 1                  ; VAPIC_POLL_IRQ
        vmcall
        dec     r12
        jnz     again
        hlt
