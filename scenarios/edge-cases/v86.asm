; A foreign hypercall in virtual-8086 mode, all of whose segments are at 0. The handlers note in EBX the vector, in ESI the error code of #GP
; (or -1), in ECX the IP and in EDX the flags of the program.
bits 32
start:
        push    0                       ; GS
        push    0                       ; FS
        push    0                       ; DS
        push    0                       ; ES
        push    0                       ; SS
        push    0x7000                  ; ESP
        push    0x20002                 ; EFLAGS with VM
        push    0                       ; CS
        push    program
        iretd

bits 16
program:
        mov     eax, 1
site:   db      0x0f, 0x01, FOREIGN
after:  int     0x80                    ; IOPL is 0: #GP(0)

bits 32
undefined:
        mov     ebx, 6
        mov     esi, -1
        jmp     note
protection:
        mov     ebx, 13
        pop     esi
note:   mov     ecx, [ss:esp]
        mov     edx, [ss:esp + 8]
        cli
        hlt
