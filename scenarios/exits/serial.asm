; Bytes to the serial port, one OUT each, after its line status said that it is free.
start:
        lea     rsi, [text]
.next:  lodsb
        test    al, al
        jz      .end
        mov     bl, al
        mov     dx, 0x3fd
.busy:  in      al, dx
        test    al, 0x20
        jz      .busy
        mov     dx, 0x3f8
        mov     al, bl
        out     dx, al
        jmp     .next
.end:   hlt
text:   db      'Hello from the guest.', 10, 0
