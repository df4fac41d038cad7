; A guest that finds Hyper-V, and calls through the page that it was given: HvCallNotifyLongSpinWait, and a call that there is not, before the
; moves, between them and behind them. R15 counts calls that succeeded, R14 those of an unknown code; R12 is the page's first bytes at the end.
OS_ID   equ     0x40000000
CALL    equ     0x40000001
PAGE    equ     0x30000
SPIN    equ     0x10008                 ; fast
start:  xor     r14d, r14d
        xor     r15d, r15d
        mov     eax, 0x40000000
        cpuid
        mov     r8d, ebx                ; "Micr"
        mov     eax, 0x40000001
        cpuid
        mov     r9d, eax                ; "Hv#1"
        mov     qword [PAGE], 0x1234567
        mov     ecx, CALL               ; without a name of the system nothing happens
        mov     eax, PAGE + 1
        xor     edx, edx
        wrmsr
        mov     r10d, [PAGE]
        mov     ecx, OS_ID
        mov     eax, 0x81000000
        wrmsr
        mov     ecx, CALL
        mov     eax, PAGE + 3           ; enabled and locked
        wrmsr
        mov     eax, PAGE + 0x1001      ; so this has no effect
        wrmsr
        rdmsr
        mov     r11d, eax
        mov     r13d, COUNT
again:  mov     ecx, SPIN
        mov     edx, 0x1000
        mov     rax, PAGE
        call    rax
        test    rax, rax
        jnz     next
        inc     r15d
next:   mov     ecx, 0x55
        mov     rax, PAGE
        call    rax
        cmp     rax, 2                  ; HV_STATUS_INVALID_HYPERCALL_CODE
        jne     here
        inc     r14d
here:   mov     ecx, DELAY
wait:   pause
        dec     ecx
        jnz     wait
        dec     r13d
        jnz     again
        mov     r12d, [PAGE]
        hlt
