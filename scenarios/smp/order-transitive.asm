; CPU 0 stores to x; CPU 1 loads x and stores to y; CPU 2 loads y and then x: can CPU 1 see the first store and CPU 2 the second alone?
PARTS = 2
start:  cmp     edi, 1
        je      .one
        ja      .two
        mov     dword [x], 1
        xor     ecx, ecx
        jmp     judge
.one:   mov     ecx, [x]
        mov     dword [y], 1
        jmp     judge
.two:   mov     eax, [y]
        mov     edx, [x]
        xor     edx, 1
        and     eax, edx
        mov     ecx, eax

; ecx says whether this CPU saw its part of the outcome in question; whoever finds that every part was seen says so.
judge:  mov     eax, ecx
        lock xadd [parts], eax
        add     eax, ecx
        cmp     eax, PARTS
        jne     .done
        mov     dword [seen], 1
.done:  hlt
        jmp     .done

align 64
x:      dd      0
align 64
y:      dd      0
align 64
parts:  dd      0
seen:   dd      0
