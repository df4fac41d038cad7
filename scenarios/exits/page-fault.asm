; The guest's own page faults are the guest's own affair: with nested paging they do not exit.
start:
        lea     rbx, [log]
        and     qword [PAGE_TABLE + (0x20000 >> 12) * 8], ~1    ; not present
        invlpg  [0x20000]
        mov     rax, [0x20000]
        and     qword [PAGE_TABLE + (0x21000 >> 12) * 8], ~2    ; not writable
        invlpg  [0x21000]
        mov     [0x21008], rax
        hlt

; Writes down error code and address, then repairs the page-table entry.
page_fault:
        push    rax
        mov     rax, [rsp + 8]
        mov     [rbx], rax
        mov     rax, cr2
        mov     [rbx + 8], rax
        add     rbx, 16
        shr     rax, 12
        or      qword [PAGE_TABLE + rax * 8], 3
        shl     rax, 12
        invlpg  [rax]
        pop     rax
        add     rsp, 8
        iretq

align 8
log:    dq      0, 0, 0, 0
