mov eax, [.lab]|.lab:
mov ebx, [.lab]|.lab:
mov ebx, [word .lab]|.lab:
mov al, [5]
push word 5
push 0xffffffff
push 0x1234
push byte 5
push eax
push ds
o16 push ds
push ax
pop ax
jmp 8:.lab|.lab:
jmp word 8:.lab|.lab:
inc eax
inc ax
inc byte [eax]
ltr ax
mov ds, ax
mov ax, ds
o16 retf
retfw
iretw
iret
mov [bx], eax
a16 movsb
a16 mov eax, [bx]
call far [eax]
fld tword [eax]
fld st1
fadd dword [eax]
movq mm0, [eax]
movd mm0, eax
movd mm0, [eax]
movaps xmm0, xmm1
movups [eax], xmm1
movsd xmm0, [eax]
movsd
pinsrw xmm0, eax, 1
pinsrw xmm0, ax, 1
pinsrw xmm0, [eax], 1
pextrw eax, xmm0, 1
cvtsi2sd xmm0, eax
cvtsi2sd xmm0, [eax]
cvttsd2si eax, xmm0
cvttsd2si eax, [eax]
ucomisd xmm0, [eax]
setc al
setnz [eax]
cmovz eax, ebx
prefetchnta [eax]
clflush [eax]
bts eax, 5
bt eax, 200
bt [eax], ebx
shld eax, ebx, 5
shld eax, ebx, cl
mov eax, 'abcd'
mov eax, 'ab'
cmp byte [eax], 'a'
in al, dx
insb
rep insb
o16 insd
test [eax], ebx
test ebx, [eax]
test byte [eax], 5
xadd [eax], ebx
cmpxchg [eax], ebx
xchg eax, ebx
xchg eax, eax
mov dr0, eax
movzx eax, word [ebx]
movzx eax, bx
movzx ax, bl
vaddps xmm0, xmm1, xmm2
vaddps ymm0, ymm1, [eax]
vmovd xmm0, eax
bextr eax, ebx, ecx
mulx eax, ebx, ecx
rdrand eax
jmp near [eax]
call near eax
jmp short .lab|.lab:
jz near .lab|.lab:
jne short .lab|.lab:
jmp dword .lab|.lab:
jmp word .lab|.lab:
call word .lab|.lab:
loop .lab|.lab:
loope .lab, cx|.lab:
vmrun
invlpga eax, ecx
invlpga ax, ecx
monitor eax, ecx, edx
lidt [eax]
add esp, -4
add esp, 4
sub esp, 128
sub esp, -128
and eax, ~3
or eax, 0x80000000
or eax, -0x80000000
mov eax, 0ffh
mov eax, 0b1010_1010
mov eax, 1010b
mov eax, 77o
mov eax, 7 % 4
mov eax, 1 << 31
.lab equ 5|mov eax, .lab
mov eax, .lab+3|.lab equ 5
add eax, .lab|.lab equ 5
mov eax, [ebx+.lab]|.lab equ 5
push .lab|.lab equ 5
mov eax, .b-.a|.a: nop|.b:
add eax, .b-.a|.a: nop|.b:
mov eax,[ebx+.b-.a]|.a: nop|.b:
mov eax, [eax*2+.lab]|.lab:
mov eax, [eax*2]
mov eax, [eax+eax]
mov eax, [ecx*2+5]
mov eax, [esp]
mov eax, [esp+ebp*2]
mov eax, [ebp+esp]
mov eax, [ebp*2]
mov eax, [ebp+ebp]
mov eax, [ebp*3]
mov eax, [ebp]
mov eax, [ebp+ecx]
mov eax, [ecx+ebp]
mov eax, [ebp+ecx*2]
mov eax, [ecx*1+ebp]
mov eax, [ebp*1+ecx]
mov eax, [ecx*1+edx]
mov eax, [ecx*1]
mov eax, [ebp*1]
mov eax, [ebp*1+ecx*1]
mov eax, [ds:ebp]
mov eax, [ebx+ebp+5]
mov eax, [ebp+ebx+5]
mov eax, [4*ecx+ebx-8]
mov eax, [ebx+(2+2)*2+ecx*(1<<2)]
mov dword [.lab+4*2], 7|.lab:
mov eax, [fs:0]
mov gs:[4], eax
pusha
popad
pushf
popfd
pushfw
les eax, [ebx]
lss esp, [eax]
bound eax, [ebx]
arpl [eax], bx
into
int3
into
daa
salc
call 0x10:0x12345678
jmp far [eax]
jmp far word [eax]
call eax
call [eax]
call word [eax]
enter 16, 1
lea eax, [esp+4]
lea ax, [esp+4]
imul eax, eax, -5
imul eax, [ebx], 1000
mov [eax], ds
mov es, [eax]
in eax, 0x10
out 0x10, ax
movsx ax, bl
movsx eax, byte [ebx]
fnsave [eax]
fstenv [eax]
fldenv [eax]
fnstsw [eax]
fstp qword [eax]
fstp st3
fistp dword [eax]
fiadd word [eax]
fcom
fcom st3
fcomp dword [eax]
fcompp
fucompp
fmul st0, st3
fmul to st3
fdivrp st2
fld1
fsin
fxsave [eax]
sysexit
wrmsr
cpuid
ud0 eax, ebx
lar eax, ax
sgdt [eax]
sidt [eax]
str [eax]
sldt ax
sldt eax
xlatb
cs xlatb
lodsb
fs lodsd
rep movsd
repe cmpsb
repne scasw
lock xadd [eax], ecx
lock cmpxchg8b [eax]
xacquire lock add [eax], ecx
bnd jmp eax
vmcall
vmread eax, ebx
vmwrite eax, [ebx]
invept eax, [ebx]
invvpid ecx, [ebx+4]
xchg [eax], al
xchg cl, [eax]
cmpxchg al, bl
movbe [eax], cx
adc eax, 0x7f
adc eax, 0x80
sbb al, 0x80
cmp dword [eax], 0x80
cmp dword [eax], -0x80
cmp word [eax], 0xff80
or word [eax], 0x1234
rol eax, 1
rcl byte [eax], cl
sar dword [eax], 31
