; As order-store-load, but the store is a locked instruction: XCHG with memory always is.
PARTS = 2
start:  mov     ebx, edi
        shl     ebx, 6                  ; x is CPU 0's, y is CPU 1's
        mov     esi, ebx
        xor     esi, 64
        mov     edx, 1
        xchg    [x + rbx], edx
        mov     eax, [x + rsi]
        xor     ecx, ecx
        test    eax, eax
        setz    cl

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
