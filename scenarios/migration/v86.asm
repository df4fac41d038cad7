; A program in virtual-8086 mode that makes hypercalls with the instruction of the machine it started on, until an exception ends it.
; EDI counts the calls, EBP keeps their results; the handlers note in EBX the vector and in ECX the IP of the exception.
bits 32
start:
        xor     edi, edi
        push    0                       ; GS
        push    0                       ; FS
        push    0                       ; DS
        push    0                       ; ES
        push    0                       ; SS
        push    0x7000                  ; ESP
        push    0x20002                 ; EFLAGS with VM
        push    0                       ; CS
        push    again
        iretd

bits 16
again:  mov     eax, 1
site:   db      0x0f, 0x01, NATIVE
        mov     ebp, eax
        inc     edi
        cmp     edi, 4
        jb      again
        hlt                             ; #GP(0) ends it, at the latest

bits 32
undefined:
        mov     ebx, 6
        mov     ecx, [ss:esp]
        jmp     done
protection:
        mov     ebx, 13
        mov     ecx, [ss:esp + 4]
done:   cli
        hlt
