; A boot sector's life: 16-bit code, an interrupt of its own, a string on the serial port.
bits 16
start:
        mov     word [0x60 * 4], service
        mov     word [0x60 * 4 + 2], 0
        mov     si, text
        int     0x60
        cli
        hlt
service:
        lodsb
        test    al, al
        jz      .end
        mov     dx, 0x3f8
        out     dx, al
        jmp     service
.end:   iret
text:   db      'real mode', 10, 0
