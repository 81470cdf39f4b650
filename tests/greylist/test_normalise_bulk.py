"""Folding measured: bulk senders by the forms of their bounce addresses, and people by their names.

The forms are those of public archives of mail; names, numbers and hashes are made up.
"""

from __future__ import annotations

import base64
import random
import string
import uuid

import pytest

from hybridgrey.greylist.normalise import sender

MESSAGES = 2000
HEX = "0123456789abcdef"
BASE32 = string.ascii_lowercase + "234567"
BASE36 = string.ascii_lowercase + string.digits
BASE62 = string.ascii_letters + string.digits


class Message:
    """One message of a bulk sender: the numbers and hashes that its bounce address is made of."""

    def __init__(self, chance):
        self._chance = chance
        self.user = "".join(chance.choices(string.ascii_lowercase, k=6)) + str(chance.randrange(100))
        self.domain = f"{''.join(chance.choices(string.ascii_lowercase, k=7))}.example"

    def text(self, alphabet, length):
        """Random text."""
        return "".join(self._chance.choices(alphabet, k=length))

    def number(self, digits):
        """A number of at most so many digits."""
        return str(self._chance.randrange(10**digits))

    def base64(self, size, *, safe=True):
        """Random bytes in base64, for URLs or not."""
        raw = self._chance.randbytes(size)
        return (base64.urlsafe_b64encode(raw) if safe else base64.b64encode(raw)).decode()

    @property
    def uuid(self):
        """A random UUID."""
        return str(uuid.UUID(int=self._chance.getrandbits(128)))


BULK = {
    "Amazon SES": lambda m: f"0100018c{m.text(HEX, 8)}-{m.uuid}-000000@amazonses.example",
    "Amazon": lambda m: f"20240131{m.number(6)}{m.text(HEX, 32)}@bounces.amazon.example",
    "Mailgun": lambda m: f"bounce+{m.text(HEX, 6)}.{m.text(HEX, 6)}-{m.user}={m.domain}@mg.shop.example",
    "SendGrid": lambda m: f"bounces+1234567-{m.text(HEX, 4)}-{m.user}={m.domain}@em1234.shop.example",
    "Mailchimp": lambda m: (
        f"bounce-mc.us1_{m.number(8)}.{m.number(7)}-{m.text(HEX, 10)}-{m.user}={m.domain}@mail1.mcsv.example"
    ),
    "Mandrill": lambda m: (
        f"bounce-md_{m.number(8)}.{m.text(HEX, 8)}.v1-{m.text(HEX, 32)}@mandrillapp.example"
    ),
    "ExactTarget": lambda m: (
        f"bounce-{m.number(4)}_HTML-{m.number(9)}-{m.number(6)}-7001234-{m.number(3)}@bounce.s7.exacttarget.example"
    ),
    "Salesforce": lambda m: f"{m.user}={m.domain}__0-{m.text(BASE36, 15)}@x.bnc.salesforce.example",
    "SparkPost": lambda m: (
        f"msprvs1={m.number(5)}{m.text(BASE62, 12)}=bounces-123456-{m.number(3)}@sp.example"
    ),
    "Postmark": lambda m: f"{m.uuid}@pm.mtasv.example",
    "Brevo": lambda m: f"bounces-{m.number(9)}-{m.user}={m.domain}@ab.d.mailin.example",
    "HubSpot": lambda m: f"1ax{m.text(BASE36, 24)}-{m.user}={m.domain}@bf10.hubspotemail.example",
    "LinkedIn": lambda m: f"m-{m.base64(36)}@bounce.linkedin.example",
    "Elastic Email": lambda m: f"{m.base64(18)}~{m.text(BASE62, 4)}@bounces.elasticemail.example",
    "Facebook": lambda m: f"notification+{m.text(string.ascii_lowercase, 12)}@facebookmail.example",
    "Google Groups": lambda m: f"list+bncBC{m.text(BASE32, 24).upper()}@googlegroups.example",
    "Yahoo groups": lambda m: (
        f"sentto-123-456-{m.number(6)}-{m.user}={m.domain}@returns.groups.yahoo.example"
    ),
    "Constant Contact": lambda m: (
        f"{m.base64(16, safe=False)}_1101{m.number(9).zfill(9)}_{m.base64(16, safe=False)}@in.ctct.example"
    ),
    "Twitter": lambda m: f"n{m.text(HEX, 12)}7-{m.text(HEX, 8)}-{m.user}={m.domain}@bounce.twitter.example",
    "ezmlm": lambda m: f"list-return-{m.number(6)}-{m.user}={m.domain}@lists.example",
    "ezmlm, to confirm": lambda m: (
        f"list-sc.17{m.number(8).zfill(8)}.{m.text('abcdefghijklmnop', 20)}-{m.user}={m.domain}@lists.example"
    ),
    "Mailman": lambda m: f"list-bounces+{m.user}={m.domain}@lists.example",
    "Microsoft 365": lambda m: (
        f"x+SRS={m.text(BASE62, 5)}={m.text(BASE32, 2)}=shop.example=user@corp.example"
    ),
    "Microsoft 365, bounces": lambda m: f"bounces+SRS={m.text(BASE62, 5)}={m.text(BASE32, 2)}@corp.example",
    "SRS": lambda m: f"SRS0={m.text(BASE62, 4)}={m.text(BASE32, 2)}=shop.example=user@fwd.example",
    "BATV": lambda m: f"prvs=1{m.text(HEX, 9)}=user@shop.example",
    "base32 token, bounces": lambda m: f"bounce-{m.text(BASE32, 16)}@news.example",
    "base64 token, for bounces": lambda m: f"{m.base64(24)}@bounce.news.example",
}


def keys_of(system):
    """The senders as they are remembered, of many messages of one system."""
    chance = random.Random(system)
    return {sender(BULK[system](Message(chance))) for _ in range(MESSAGES)}


@pytest.mark.parametrize("system", BULK)
def test_bulk_senders(system):
    """Two thousand messages of one bulk sender are one sender."""
    keys = keys_of(system)
    assert len(keys) == 1, sorted(keys)[:10]


PEOPLE = [
    "ann", "bob", "joe", "li", "wu", "ng", "vo", "ho", "an", "xi", "john.smith", "john.smith2",
    "john.smith3", "jsmith", "j.smith", "smithj", "js", "jds", "JohnSmith", "johnSmith77", "john_smith",
    "john-smith", "jsmith1", "jsmith12", "jsmith123", "j.r.r.tolkien", "jrrtolkien", "c3po", "r2d2",
    "agent007", "b2b-sales", "h2o", "co2", "mp3fan", "web2print", "4you", "me2", "2fast",
    "christopher42", "anna-lena", "hans-peter.mueller-luedenscheidt", "maximilian.mustermann",
    "bartholomew.featherstonehaugh", "wolfeschlegelsteinhausen", "donaudampfschifffahrtsgesellschaft",
    "schmidtchen.schleicher", "rechtsschutzversicherung", "kraftfahrzeughaftpflicht",
    "hottentottenstottertrottel", "krzysztof.przybylski", "grzegorz", "brzeczyszczykiewicz",
    "szczepan.zdzblo", "wojciech.szczesny", "zbigniew", "zdrhlkrk", "strcprst.skrzkrk", "vlk",
    "jiri.dvorak", "ctvrtnik", "nguyenvananh", "nguyen.thi.huong", "tranthithuytrang", "phamngocthach",
    "lethanhnghi", "dangthituyetnhung", "huynhphuquoc", "nguyenthingocanh", "ngothibaochau",
    "duongquanghuy", "xiaoming.wang", "wangxiaoming", "zhangsan", "zhangweiqiang", "lixiaolong",
    "chenguangzhong", "zhouxiangyu", "xuzhiqiang", "qianxuesen", "huangjianguo", "ouyangxiu",
    "zhugeliang", "simaqian", "liuxiaobo", "yangzhenning", "tsungdao.lee", "chongzhi", "deadbeef",
    "cafebabe", "facade", "decade", "beefcafe", "abcdef", "abcde1984", "feed2000", "bead1999", "ace42",
    "dad1", "fade7", "added77", "dec31", "feb28", "abc", "abcd", "jan.1984", "maria1990x", "kevin1985a",
    "tom85", "lisa07", "paul_99", "eva2k", "ben10", "max500", "lucky13", "apollo11", "area51",
    "studio54", "number6", "louis14", "henry8", "catch22", "blink182", "sum41", "u2fan", "matchbox20",
    "maroon5", "jackson5", "route66", "boeing747", "bmw325", "golf4", "windows95", "win32", "x86",
    "z80", "m68k", "68k", "i486", "ps2", "n64", "gtr34", "mk2", "v8power", "f1fan", "3com", "7up",
    "1und1", "4711fan", "web.de-fan", "a.b", "a-b", "a_b", "ab.c", "a.bc", "abc.d", "michael.oconnor",
    "michael.o-connor", "m.oconnor", "moconnor", "o.connor", "mcdonald", "macdonald", "vanderbilt",
    "van.der.berg", "vandenberg", "de.la.cruz", "delacruz", "dela-cruz", "al-rashid", "alrashid",
    "abd.el-rahman", "abdelrahman", "bin.laden.family", "ben.gurion", "ibn-sina", "jose.maria",
    "josemaria", "jm.garcia", "garcia.lopez", "garcialopez", "fernandez-de-cordoba", "sanchezvicario",
    "juan23", "juan24", "juanito", "info", "sales", "office", "kontakt", "contact", "hello", "support",
    "help", "postmaster", "abuse", "hostmaster", "webmaster", "admin", "root", "daemon", "marketing",
    "presse", "press", "jobs", "karriere", "career", "bestellung", "order", "orders", "rechnung",
    "invoice", "billing", "buchhaltung", "accounting", "newsletter", "news", "noreply", "no-reply",
    "donotreply", "return", "returns", "owner-list", "list", "list-owner", "announce", "mailer",
    "error", "sekretariat", "verwaltung", "gemeinde", "rathaus", "praxis", "apotheke", "feuerwehr",
    "schule.am.see", "kindergarten-sonnenschein", "tkdfan", "xhtml", "css3", "php5dev", "mysqladmin",
    "qwertz", "qwerty", "asdf", "asdfgh", "zxcvb", "wxyz", "bcdfg", "kjh", "xyz123", "abc123", "qwe123",
    "pw12", "pq7",
]  # fmt: skip


def test_people_stay_apart():
    """Two hundred and more local parts that people have are as many senders."""
    assert len(PEOPLE) == len({p.lower() for p in PEOPLE}) >= 200
    keys = {}
    for person in PEOPLE:
        keys.setdefault(sender(f"{person}@example.org"), []).append(person)
    assert [people for people in keys.values() if len(people) > 1] == []


def test_people_at_large_domains_stay_apart():
    """Letters alone are never folded in an ordinary address, whatever they spell."""
    chance = random.Random(1)
    names = {"".join(chance.choices(string.ascii_lowercase, k=chance.randrange(1, 30))) for _ in range(2000)}
    assert len({sender(f"{name}@example.org") for name in names}) == len(names)


if __name__ == "__main__":
    for name in BULK:
        print(f"{name:28}{len(keys_of(name)):6}  {sorted(keys_of(name))[0]}")
