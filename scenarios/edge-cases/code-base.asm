; The code segment's base is not 0. The hypervisor patches at RIP as if it were, and so never reaches the instruction.
bits 32
BASE    equ 0x10000
start:
        mov     word [0x8038 + 2], BASE & 0xffff        ; base of the 16-bit code descriptor of the environment's GDT
        mov     byte [0x8038 + 4], BASE >> 16
        mov     word [0x8038], 0xffff
        mov     byte [0x8038 + 6], 0x40                 ; make it 32-bit code
        mov     eax, 1
        jmp     CODE16:inside - BASE
inside:
site:   db      0x0f, 0x01, FOREIGN
after:  hlt
