dnl hybridgrey for sendmail.mc, Sendmail 8.14 and later.  Before the MAILER lines:
dnl
dnl     include(`/etc/mail/hybridgrey.m4')dnl
dnl
dnl To change socket or flags, put these before that line:
dnl
dnl     define(`HYBRIDGREY_SOCKET', `unix:/run/hybridgrey/milter.sock')dnl
dnl     define(`HYBRIDGREY_FLAGS', `F=T, ')dnl
dnl
dnl Put it before the INPUT_MAIL_FILTER lines of other filters: Sendmail asks them in this order.  hybridgrey removes
dnl results (Authentication-Results) under this host's name that came from outside.  Results that a filter before it has
dnl added look the same, and would be lost.  Filters after it, such as OpenDKIM, lose nothing.
dnl
dnl It serves all ports, the submission service too, and learns there whom your users write to.  A DAEMON_OPTIONS line with
dnl InputMailFilters has to name it, first.  With a plain SMART_HOST all mail goes by the mailer relay, which is for your own
dnl domains, too, and nothing is learnt; with `esmtp:' before the host it is.
dnl
dnl The socket is `listen' of hybridgrey.toml, in the same words.  Without flags mail passes while the filter is
dnl down; F=T defers it, F=R refuses it.
dnl
dnl T: at most 5 s to connect, 10 s to send to the filter, 30 s for an answer, a minute for the end of the message.
dnl An answer takes no longer than dns.timeout and store.timeout together.
dnl
dnl The filter asks for its macros itself ({client_resolve}, {auth_authen} and others), so
dnl confMILTER_MACROS_CONNECT and its like stay as they are.
ifdef(`HYBRIDGREY_SOCKET', `', `define(`HYBRIDGREY_SOCKET', `inet:8893@127.0.0.1')')dnl
ifdef(`HYBRIDGREY_FLAGS', `', `define(`HYBRIDGREY_FLAGS', `')')dnl
INPUT_MAIL_FILTER(`hybridgrey', `S=HYBRIDGREY_SOCKET, HYBRIDGREY_FLAGS`'T=C:5s;S:10s;R:30s;E:1m')dnl
