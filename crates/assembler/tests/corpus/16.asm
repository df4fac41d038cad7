mov ax, 5
mov eax, 5
mov [bx+si], ax
mov [si+bx], ax
mov [bp], ax
mov [bp+di+5], ax
mov [bx+.lab], ax|.lab:
mov eax, [ebx]
mov [.lab], ax|.lab:
mov [.lab], al|.lab:
mov bx, [.lab]|.lab:
mov bx, [dword .lab]|.lab:
mov ax, [dword .lab]|.lab:
push 5
push dword 5
push 500
push .lab|.lab:
jmp 8:.lab|.lab:
jmp dword 8:.lab|.lab:
jmp far [bx]
jmp dword far [bx]
call [bx]
call dword [bx]
call dword .lab|.lab:
lgdt [.lab]|.lab:
o32 lgdt [.lab]|.lab:
o32 ret
o32 retf
o32 iret
iretd
retd
retw
pushfd
pushad
pusha
popa
a32 movsb
a32 o32 movsw
mov cr0, eax
mov eax, cr0
mov ds, ax
mov ax, ds
mov eax, ds
mov [cs:bx], ax
mov [ss:bp], ax
enter 4, 0
loop $
a32 loop $
jecxz $
jcxz $
add ax, 0xfff0
add ax, 0xffff
sub sp, byte 4
sub sp, 0x80
in eax, dx
ltr ax
ltr [bx]
str ax
str eax
mov [eax*4], bx
mov [eax+ebp], bx
mov [ebp+eax], bx
xchg ax, bx
xchg bx, ax
xchg cx, dx
xchg [bx], cx
vmcall
vmrun
db 1,'abc',"x",`\n`
dw 'abc', 1
dd 1.5, .lab|.lab:
dq 1.5, 'abcdefgh'
times 4 dw $
times 2 jmp $
align 16
nop|align 16
nop|align 16, db 0
resb 5
jo .lab|times 200 nop|.lab:
mov ax, .lab-$$|.lab:
.x equ 5|mov ax, [.x]
mov ax, [5]
mov cl, [5]
mov [5], al
rep stosd
repne scasb
wait
fstcw [bx]
fnstcw [bx]
fsave [bx]
sysenter
bound ax, [bx]
arpl ax, bx
les ax, [bx]
lds eax, [bx]
xlat
aam 5
aam
aad
daa
das
aaa
aas
mov [bx+0xfffe], ax
mov [bx-2], ax
mov [bp+0xff80], ax
mov ax, -1 >> 60
mov ax, ~5 & 0xff
rep ret
lock inc byte [bx]
es mov ax, [bx]
es lodsb
mov ax, [es:bx]
mov ax, es:[bx]
mov word es:[bx], 5
jmp $+5
jmp 0x7c10
call 0:0x7c00
call word 0x10:0x20
jmp word 0x10:0x20
movzx ax, [bx]
movzx eax, byte [bx]
movzx eax, word [bx]
mov ax, [ebx+ecx*2+5]
lgdt [cs:.lab]|.lab:
mov al, [cs:.lab]|.lab:
or al, 1
or eax, 1
and ax, 0xfffe
out 0x92, al
test al, 2
int 0x10
int 0x13
cmp ax, bx
je .x|nop|.x:
jc .x|nop|.x:
retf 2
ret 2
iret
push es
pop ds
push fs
mov sp, 0x7c00
xor ax, ax
lea si, [bx+di+0x1234]
lea si, [.lab]|.lab:
mov dx, 0x3f8
mov ecx, 0xc0000080
rdmsr
jmp near .lab|.lab:
jmp dword 0x08:.lab|bits 32|.lab: mov eax, .lab|bits 16
smsw ax
smsw eax
lmsw ax
clts
invd
mov dr7, eax
push dword [bx]
push word [bx]
pop dword [bx]
call far [bx]
imul ax, bx, 5
imul ax, bx, 500
shl ax, 4
movsw
lodsd
insw
outsd
cbw
cwde
cwd
cdq
leave
setz al
bswap eax
cmpxchg [bx], cx
xadd [bx], cl
mov ax, 'ab'
mov bx, word [si]
fld dword [bx]
fild word [bx]
fldcw [bx]
finit
fninit
fclex
a32 mov al, [5]
a32 mov bl, [5]
