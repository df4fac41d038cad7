; Two CPUs of a guest that was built for AMD take turns; who has had his turn wakes the other by the hypercall KICK_CPU, as a paravirtual
; spin lock does. With READ_ONLY the text is write-protected, as that of a modern kernel. R15 counts the turns of a CPU, R11 is the vector of
; the exception that it died of.
start:
        mov     r13d, edi
        mov     r14d, 1
        sub     r14d, edi
        xor     r15d, r15d
        xor     r11d, r11d
        mov     eax, text
        shr     eax, 12
        mov     ebx, READ_ONLY * 2
        not     ebx
        test    edi, edi
        jnz     text
        and     byte [PAGE_TABLE + rax * 8], bl
        invlpg  [text]
        jmp     text

align 4096
text:
wait_:  cmp     [turn], r13d
        je      mine
        hlt
        jmp     wait_
mine:   inc     dword [count]
        inc     r15d
        mov     [turn], r14d
        mov     eax, 5                  ; KICK_CPU
        xor     ebx, ebx
        mov     ecx, r14d
call_:  db      0x0f, 0x01, NATIVE
        mov     r8, rax
        cmp     r15d, 4
        jne     wait_
over:   hlt
        jmp     over

align 4096
undefined:
        mov     r11d, 6
        hlt
page_fault:
        mov     r11d, 14
        hlt

align 64
turn:   dd      0
align 64
count:  dd      0
