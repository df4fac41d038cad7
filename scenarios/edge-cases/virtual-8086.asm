; A foreign hypercall in virtual-8086 mode, which is user mode to the processor.
bits 32
start:
        push    0                       ; GS, FS, DS, ES
        push    0
        push    0
        push    0
        push    0                       ; SS:ESP
        push    0x7000
        push    (1 << 17) | 2           ; VM
        push    0x1000                  ; CS:EIP
        push    legacy - 0x10000
        iret
bits 16
legacy:
        mov     eax, 1
site:   db      0x0f, 0x01, FOREIGN
        jmp     $
bits 32
undefined:
        mov     edi, 6
        pop     edx                     ; EIP
        hlt
protection:
        mov     edi, 13
        pop     esi                     ; error code
        pop     edx
        hlt
