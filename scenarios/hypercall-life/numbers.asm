; Several hypercalls after one another; their results go to a table.
start:
        lea     rdi, [results]
        mov     eax, 1                  ; VAPIC_POLL_IRQ
        call    issue
        mov     eax, 2                  ; MMU_OP, long gone
        call    issue
        mov     eax, 5                  ; KICK_CPU of CPU 0, itself
        xor     ebx, ebx
        xor     ecx, ecx
        call    issue
        mov     eax, 11                 ; SCHED_YIELD to itself
        xor     ebx, ebx
        call    issue
        mov     eax, 12                 ; MAP_GPA_RANGE: nobody asked for its exit
        mov     ebx, 0x20000
        mov     ecx, 1
        xor     edx, edx
        call    issue
        mov     eax, 0x7fff             ; no such number
        call    issue
        hlt                             ; ends at once: the kick was for this
        hlt

issue:
site:   db      0x0f, 0x01, NATIVE
        mov     [rdi], rax
        add     rdi, 8
        ret

align 8
results:
        times 6 dq 0x55
