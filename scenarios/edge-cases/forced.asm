; KVM's emulation prefix, `ud2` and the letters `kvm`, before the processor's own hypercall instruction.
start:
        cmp     byte [read_only], 0
        je      .go
        mov     eax, site
        shr     eax, 12
        and     byte [PAGE_TABLE + rax * 8], 0xfd
        invlpg  [site]
.go:    mov     eax, 1
        jmp     forced

align 4096
forced: db      0x0f, 0x0b, 'kvm'
site:   db      0x0f, 0x01, NATIVE
after:  hlt

align 4096
undefined:
        mov     r11d, 6
        pop     r9
        hlt
page_fault:
        mov     r11d, 14
        pop     r8
        pop     r9
        mov     r10, cr2
        hlt
read_only:
        db      READ_ONLY
