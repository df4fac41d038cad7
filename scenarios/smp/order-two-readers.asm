; CPU 0 stores to x and CPU 1 to y, both with XCHG if LOCKS is 1; CPU 2 loads x and then y, CPU 3 y and then x: can they see the two
; stores in different orders?
PARTS = 2
start:  mov     ebx, edi
        and     ebx, 1
        shl     ebx, 6
        test    edi, 2
        jnz     reader
        xor     ecx, ecx
        mov     eax, 1
        times LOCKS xchg [x + rbx], eax
        times 1 - LOCKS mov dword [x + rbx], 1
        jmp     judge
reader: mov     esi, ebx
        xor     esi, 64
        mov     eax, [x + rbx]
        mov     edx, [x + rsi]
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
