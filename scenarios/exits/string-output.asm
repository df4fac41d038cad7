; A whole string to the serial port with one REP OUTSB.
start:
        lea     rsi, [text]
        mov     ecx, text_end - text
        mov     dx, 0x3f8
        cld
site:   rep outsb
        hlt
text:   db      'one instruction', 10
text_end:
