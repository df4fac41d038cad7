; Each CPU loads one word and then stores to the other: can both load what the other stores behind its load?
PARTS = 2
start:  mov     ebx, edi
        shl     ebx, 6
        mov     esi, ebx
        xor     esi, 64
        mov     ecx, [x + rbx]
        mov     dword [x + rsi], 1

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
