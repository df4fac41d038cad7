; Instructions that are undefined on both vendors, and what the emulator of 2007 made of them. A handler of #UD goes on behind each.
start:
        mov     ebx, 0x1234
        mov     r8, -1
        mov     r9, -1
move:   db      0x44, 0x8d, 0xc3        ; LEA R8D, EBX: there is no such LEA; a MOV
read:   db      0x45, 0x0f, 0x20, 0xc9  ; MOV R9, CR9: there is no CR9; zero
write:  db      0x0f, 0x22, 0xe8        ; MOV CR5, RAX: nothing
flush:  db      0xf0, 0x0f, 0x09        ; LOCK WBINVD: nothing
refused:
        ud2                             ; it could not be decoded: the guest's own affair
after:  hlt

undefined:
        mov     r12, [rsp]
        movzx   rdx, byte [r12 + lengths - move]
        add     [rsp], rdx
        inc     r11d
        iretq
; At the offset of each instruction its length.
lengths:
        db      3, 0, 0, 4, 0, 0, 0, 3, 0, 0, 3, 0, 0, 2
