"""What is fuzzed: each target takes bytes and fails unless its promise holds.

A parser of foreign text promises to return, or to raise its own error and no other; what it shows to people
is printable and on one line. `TARGETS` has them by name, with inputs to begin from.
"""

from __future__ import annotations

from fuzz import byhand, protocol, stored
from fuzz.answers import dns_datagram, dns_reply, replies, spf_reply, spf_rows
from fuzz.base import TESTS, Target
from fuzz.clients import ADDRESSES, envelope, header, host_name, path, shown
from fuzz.logged import MAIL_LOG, mail_log
from fuzz.spfrecords import SPF, spf
from fuzz.written import SAMPLE, access_map, entries, main_cf, pattern, settings, store_url

TARGETS = {
    "dns_reply": Target(dns_reply, replies(), share=20),
    "dns_datagram": Target(dns_datagram, [b"\x12\x34" + r[2:] for r in replies()], share=10),
    "pattern": Target(
        pattern,
        [b"127.0.0.[2..11]", b"zen.spamhaus.org=127.0.[0..255].[2;4..8]*-2", b"b\xc3\xbc.test", b"a.b*3"],
        [b"[", b"]", b"..", b";", b"*", b"=", b"255", b"256", b" "],
        20,
    ),
    "entries": Target(
        entries,
        [
            b"192.0.2.0/24\n!192.0.2.1\n# x\n",
            b"192.0.2 OK\n2001:db8::/32 permit\n.example.org OK\n",
            b"postmaster@\nuser@example.org\n",
            b"mail.example.org REJECT no\n",
        ],
        [b"::", b"/", b"OK", b"!", b"#", b"\n", b"@", b"\xef\xbb\xbf"],
        12,
    ),
    "settings": Target(
        settings,
        [
            SAMPLE,
            b'[[rule]]\nname="x"\naction="accept"\n',
            b'[zones."a.b"]\nlabel="x"\nerror_codes=["127.0.0.1"]\n',
        ],
        [b"[[rule]]", b"=", b'"', b"[", b"]", b"1e9", b"true", b'"5m"', b"\n", b"dns", b"nan", b"inf"],
        1,
    ),
    "store_url": Target(
        store_url,
        [
            b"redis://u:p@host:6379/0?ssl=true",
            b"sentinel://a:1,[::1]:2/m/0",
            b"cluster://a,b:7",
            b"unix:///a?db=1",
            b"embedded:/var/lib/x",
        ],
        [b"@", b":", b"//", b"[", b"]", b"%", b"?", b"&"],
        8,
    ),
    "main_cf": Target(
        main_cf,
        [path.read_bytes() for path in sorted((TESTS / "maincf").glob("*.cf"))],
        [b"$", b"${", b"}", b",", b"\n ", b"=", b"reject_rbl_client ", b"permit", b"{", b"*-2", b"?", b":"],
        4,
    ),
    "access_map": Target(
        access_map,
        [b"192.0.2.1 OK\n192.0.2 REJECT\n", b"a.example permit\n", b"if /x/\n", b"2001:db8::/32 DUNNO\n"],
        [b"OK", b"REJECT", b"/", b".", b"\n", b"\t", b"!", b"#"],
        5,
    ),
    "mail_log": Target(
        mail_log,
        MAIL_LOG,
        [b"reject: ", b"; from=", b"<", b">", b"]: ", b"450 ", b"Feb 29 ", b"Dec 31 ", b"\n", b"+99:99"],
        10,
    ),
    "envelope": Target(
        envelope, ADDRESSES, [b"@", b"<", b">", b"=", b"+", b"SRS0=", b"prvs=", b"%", b"{", b"}"], 15
    ),
    "path": Target(
        path,
        [
            *(b"%s\n%s" % (one, one.strip(b"<>")) for one in ADDRESSES),
            *ADDRESSES,
            b"<postmaster@x:;user>\nuser@mx.test",
            b"<ceo(x)@optout.test>\nceo@optout.test",
            b"<@a,@b:c@d.test>",
            "<u@stra\u00dfe.test>\nu@strasse.test".encode(),
            b'<a\\@b@x.test>\n"a@b"@x.test',
        ],
        [
            b"@",
            b":",
            b";",
            b"(",
            b")",
            b'"',
            b"\\",
            b"%",
            b"!",
            b" ",
            b"\n",
            b"<",
            b">",
            b"\xc3\xbc",
            b"[",
            b"]",
        ],
        15,
    ),
    "header": Target(
        header,
        [
            b"mx.test; dkim=pass",
            b'(a (b)) "mx.test" 1; x=y',
            b"=?utf-8?q?x?=",
            b"delayed 1 seconds by x at y",
        ],
        [b"(", b")", b"\\", b'"', b";", b"\r\n ", b"mx.test", b"=?", b"\xff", b"by hybridgrey at "],
        10,
    ),
    "milter": Target(protocol.milter, protocol.SEEDS, protocol.WORDS, share=20),
    "byhand": Target(byhand.byhand, byhand.SEEDS, byhand.WORDS, share=10),
    # A real server answers some forty calls for each input.
    "stored": Target(stored.stored, stored.SEEDS, stored.WORDS, share=1),
    "host_name": Target(
        host_name,
        [b"\xc0\0\2\1192-0-2-1.dyn.example.org", b"\xc0\0\2\1c0000201.smtp-out.example.co.uk"],
        [b".", b"-", b"192", b"dsl", b"pool", b"mail"],
        10,
    ),
    "spf_reply": Target(
        spf_reply, spf_rows(), (b"\xc0\x0c", b"\0\1\0\1", b"\0\x05\0\1", b"\x06v=spf1"), share=20
    ),
    "spf": Target(
        spf,
        SPF,
        [
            b"v=spf1 ",
            b"%{",
            b"}",
            b"ip4:",
            b"a:",
            b"mx",
            b"include:",
            b"redirect=",
            b"/",
            b"//",
            b"\n",
            b" ",
            b"%",
        ],
        5,
    ),
    "shown": Target(
        shown, [*ADDRESSES, b"\x1b[31m", b"%s%n", b"a\r\n554 x"], [b"%", b"\n", b"\x00", b"\xff", b"\\"], 15
    ),
}
