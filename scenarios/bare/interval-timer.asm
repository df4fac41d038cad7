; The PIT at 1000 Hz through the old interrupt controllers, five ticks.
start:
        mov     al, 0x11                ; both PICs: vectors from 0x20 and 0x28
        out     0x20, al
        out     0xa0, al
        mov     al, 0x20
        out     0x21, al
        mov     al, 0x28
        out     0xa1, al
        mov     al, 4
        out     0x21, al
        mov     al, 2
        out     0xa1, al
        mov     al, 1
        out     0x21, al
        out     0xa1, al
        mov     al, 0xfe                ; the timer alone
        out     0x21, al
        mov     al, 0xff
        out     0xa1, al
        mov     al, 0x34                ; channel 0, rate generator
        out     0x43, al
        mov     al, 1193 & 0xff
        out     0x40, al
        mov     al, 1193 >> 8
        out     0x40, al
        sti
.sleep: hlt
        cmp     r15d, 5
        jb      .sleep
        cli
        hlt
tick:   inc     r15d
        mov     al, 0x20
        out     0x20, al
        iretq
